"""The frame of a command's run: notes, progress, records to stdout and to a file, and the line in the journal."""

from __future__ import annotations

import contextlib
import copy
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sanactl.checkpoint.open import Checkpoint
from sanactl.cli.frame.as_made import is_as_made, small_digest
from sanactl.cli.frame.next_steps import wrote_line
from sanactl.cli.frame.records_out import RecordsOut
from sanactl.cli.frame.stdout import stdout_is_piped
from sanactl.cli.frame.terminal import is_first_process, note
from sanactl.errors import InputError, OutputExistsError
from sanactl.files.atomic import check_target
from sanactl.records.journal import Journal, Run, run_key
from sanactl.records.partial import Partial
from sanactl.records.records import Record, load_records
from sanactl.version import __version__

__all__ = ["Invocation", "checkpoint_record", "given_key"]

# Kinds of outputs that are reported at the end; commands with other outputs have messages of their own.
_TOLD = ("checkpoint", "block", "image", "score", "judge", "prompt", "shard")


def checkpoint_record(checkpoint: Checkpoint, *, digest: bool = True) -> Record:
    """A checkpoint's record, for the next command and for the table on a terminal.

    Args:
        digest: include the digest; for this a large checkpoint is read once.
    """
    return {
        "kind": "checkpoint",
        "path": checkpoint.source,
        **({"digest": checkpoint.digest} if digest else {}),
        "blocks": checkpoint.num_blocks,
        "parameters": checkpoint.num_parameters,
        "bytes": checkpoint.nbytes,
    }


def given_key(checkpoint: Checkpoint) -> dict[str, str]:
    """The part of a run's key from `--components`; empty if the checkpoint uses its own components."""
    return {} if checkpoint.given is None else {"components": checkpoint.given}


def _images_are_there(path: Path) -> bool:
    """Whether the images of a file of records exist."""
    return all(Path(str(record.get("path"))).exists() for record in load_records(path))


class Invocation(RecordsOut):
    """Everything that a command does around its call into the library.

    With several processes, only the first writes records, files, the journal and messages.
    """

    def __init__(self, command: str, *, seed: int | None = None) -> None:
        super().__init__()
        self.journal = Journal()
        self.run = Run(command=command, argv=sys.argv[1:], version=__version__, seed=seed)
        self.started = time.monotonic()
        self._example: Record | None = None
        self._there: set[Path] = set()

    def uses(self, thing: Checkpoint | Path | str) -> None:
        """Note an input for the journal, and print the notes about how it was opened."""
        if isinstance(thing, Checkpoint):
            for line in thing.notes:
                note(line)
            thing.read_hashes(self.progress)
            # For a pipeline it is the pipeline's folder, as in the journal, not the transformer's folder inside it.
            path = thing.source if thing.kind == "pipeline" else str(thing.path)
            self.run.inputs.append({"path": path, "digest": thing.digest})
        else:
            self.run.inputs.append({"path": str(thing)})

    def part(self) -> Invocation:
        """The run of one of several outputs, with the inputs noted so far: a key and a line in the journal of its own."""
        part = copy.copy(self)
        part.run = replace(self.run, inputs=list(self.run.inputs), outputs=list(self.run.outputs))
        return part

    def key(self, **settings: Any) -> str:
        """Set the settings that decide the output, and return their key."""
        self.run.key = run_key(self.run.command, version=__version__, **settings)
        return self.run.key

    def made_before(self, path: Path, *, force: bool) -> bool:
        """Whether `path` exists from an identical run, so that nothing needs to be done.

        Raises:
            OutputExistsError: it exists, but is from another run or was changed since, and `force` was not given.
            SanactlError: it could not be written, for example because there is no such folder.
        """
        made = self.journal.made_as(path, self.run.key) if self.run.key and not force else None
        if made is not None:
            if not is_as_made(path, made):
                raise OutputExistsError(
                    f"{path} was made from the same inputs and settings, but has changed since",
                    hint="name another output with -o, or --force makes it again",
                )
            note(f"{path} is there already, from the same inputs and settings; --force makes it again")
            self._there.add(path)
            return True
        check_target(path, force)
        return False

    def made_under(self, stem: str) -> Path | None:
        """The file of records STEM.jsonl, STEM-2.jsonl... from an identical run, if its images are still there.

        With several processes, the first one decides.
        """

        def find() -> Path | None:
            number, path = 1, Path(f"{stem}.jsonl")
            while path.exists():
                made = self.journal.made_as(path, self.run.key) if self.run.key else None
                if made is not None and is_as_made(path, made) and _images_are_there(path):
                    return path
                number += 1
                path = Path(f"{stem}-{number}.jsonl")
            return None

        from sanactl.model.processes import agree

        path = agree(find)
        if path is not None:
            note(f"{path} is there already, from the same inputs and settings; --force makes it again")
            self._there.add(path)
        return path

    @contextlib.contextmanager
    def keeping(self, target: Path, **identity: Any) -> Iterator[Partial]:
        """Save single results beside `target` during the work, so that the same command can continue after a stop.

        They are removed at the end of the body, when the output is written.

        Args:
            identity: everything that all results depend on.
        """
        command = self.run.command.replace(" ", "-")
        kept = Partial(target.parent, command, {"version": __version__, **identity}, tell=self.progress.note)
        self.progress.keeps("the results so far are kept")
        try:
            yield kept
            self.progress.keeps(None)
            kept.done()
        finally:
            kept.close()

    def counted(
        self, records: Iterable[Record], what: str, *, source: object = "stdin", empty: bool = False
    ) -> Iterator[Record]:
        """Pass records on, and raise if there was none: a file without any is named, and a pipe's command may have failed.

        Args:
            source: where they come from: a path, or "stdin".
            empty: no records are no error.
        """
        for record in records:
            self._example = self._example or record
            yield record
        if self._example is not None or empty:
            return
        if str(source) != "stdin":
            raise InputError(f"{source}: no {what} in it")
        raise InputError(f"no {what} came in", hint="the command before may have failed")

    @property
    def kind_of_input(self) -> str | None:
        """The kind of the first record that `counted` has passed on."""
        return None if self._example is None else str(self._example["kind"])

    def again(self, path: Path) -> Iterator[Record]:
        """The records of an earlier, identical run."""
        return iter(load_records(path))

    def finish(self, *outputs: tuple[Path, str] | tuple[Path, str, str], **facts: Any) -> None:
        """Writes the journal's line: outputs as (path, kind) or (path, kind, digest), and facts about all of them.

        Raises:
            SanactlError: stdout could not be written, or a name that was asked for was taken meanwhile (see `emit` and
                `tee`); the outputs are in their places.
        """
        if self._progress is not None:
            self._progress.close()
        if not is_first_process():
            return
        self.run.inputs += self._piped_from()
        for path, kind, *digest in outputs:
            known = {"digest": digest[0] if digest else facts.get("digest") or small_digest(path)}
            known = {key: value for key, value in known.items() if value}
            self.run.outputs.append(
                {"path": str(self._renamed.get(path, path)), "kind": kind, **known, **facts}
            )
        if why := self.journal.append(self.run, time.monotonic() - self.started):
            note(f"warning: {self.journal.path} cannot be written ({why}), so log will not know of this run")
        if self._sheet is not None:
            self._sheet.write()
            more = f"; {self._sheet.left_out:,} more images are left out" if self._sheet.left_out else ""
            note(f"drew {self._sheet.path}{more}")
        if not stdout_is_piped():  # in a pipe, the next command runs already
            for path, kind, *_ in outputs[-1:]:  # the main one
                # A shard of encode is no file of records; the command says what it has written.
                if path not in self._there and kind in _TOLD and (kind != "shard" or self._counts):
                    told = self._renamed.get(path, path)
                    scorable = self._example is None or "tag" in self._example
                    note(wrote_line(self.run.command, told, kind, self._counts, scorable=scorable))
        if self._fault is not None:
            raise self._fault

    def _piped_from(self) -> list[dict[str, Any]]:
        """The inputs of records from a pipe: the list of images that `sample` wrote, else their checkpoint."""
        record = self._example
        if record is None or not any(i["path"] == "stdin" for i in self.run.inputs):
            return []
        folders = Path(str(record.get("path"))).parents
        if len(folders) > 2 and (folders[2] / "images.jsonl").exists():
            return [{"path": str(folders[2] / "images.jsonl")}]
        known = {"path": record.get("checkpoint"), "digest": record.get("digest")}
        return [known] if isinstance(known["path"], str) else []
