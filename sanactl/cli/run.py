"""One run of a command: its notes, its progress, its records to stdout and to a file, its line in the journal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sanactl import __version__
from sanactl.cli.progress import open_progress
from sanactl.cli.streams import is_first_process, note, write_line
from sanactl.errors import InputError
from sanactl.io.atomic import atomic_path, check_target
from sanactl.io.checkpoint import Checkpoint
from sanactl.io.journal import Journal, Run, run_key
from sanactl.io.progress import SILENT, Progress
from sanactl.io.records import Record, dumps, load_records

__all__ = ["Invocation", "checkpoint_record"]


def checkpoint_record(checkpoint: Checkpoint) -> Record:
    """A checkpoint as a record: enough for the next command and for a person."""
    return {
        "kind": "checkpoint",
        "path": checkpoint.source,
        "digest": checkpoint.digest,
        "blocks": checkpoint.num_blocks,
        "parameters": checkpoint.num_parameters,
        "bytes": checkpoint.nbytes,
    }


class Invocation:
    """What a command does around its one call into the library.

    Under several processes only the first writes: records, files, the journal and what is for people.
    """

    def __init__(self, command: str, *, seed: int | None = None) -> None:
        self.journal = Journal()
        self.run = Run(command=command, argv=sys.argv[1:], version=__version__, seed=seed)
        self.started = time.monotonic()
        self._progress: Progress | None = None
        self._example: Record | None = None

    @property
    def progress(self) -> Progress:
        """The sink to give to a stage."""
        if self._progress is None:
            self._progress = open_progress() if is_first_process() else SILENT
        return self._progress

    def uses(self, thing: Checkpoint | Path | str) -> None:
        """Notes an input for the journal."""
        if isinstance(thing, Checkpoint):
            # A pipeline is known by its own folder, under which it was written, not by the transformer's inside it.
            path = thing.source if thing.kind == "pipeline" else str(thing.path)
            self.run.inputs.append({"path": path, "digest": thing.digest})
        else:
            self.run.inputs.append({"path": str(thing)})

    def key(self, **settings: Any) -> str:
        """Sets what the output is a function of."""
        self.run.key = run_key(self.run.command, version=__version__, **settings)
        return self.run.key

    def made_before(self, path: Path, *, force: bool) -> bool:
        """Whether `path` is there from the same run already, so that nothing is left to do.

        Raises:
            OutputExistsError: it is there, but from something else, and `force` was not given.
            SanactlError: it could not be written anyway: no such folder.
        """
        if not force and path.exists() and self.run.key and self.journal.made(path, self.run.key):
            note(f"{path} is there already, from the same inputs and settings; --force makes it again")
            return True
        check_target(path, force)
        return False

    def emit(self, records: Iterable[Record], *, show: Callable[[list[Record]], None] | None = None) -> None:
        """Writes records to stdout as they come; on a terminal, collects them and shows them for people."""
        if show is not None and sys.stdout.isatty():
            collected = list(records)
            if self._progress is not None:
                self._progress.close()
            if is_first_process():
                show(collected)
            return
        for record in records:
            write_line(dumps(record))

    def free_name(self, stem: str, suffix: str, *, force: bool) -> Path:
        """STEM.jsonl, or STEM-2.jsonl and so on where that is there: records of several runs lie side by side."""
        path, number = Path(f"{stem}{suffix}"), 1
        while path.exists() and not force:
            number += 1
            path = Path(f"{stem}-{number}{suffix}")
        return path

    def counted(self, records: Iterable[Record], what: str) -> Iterator[Record]:
        """Passes records on and raises if there was none: an empty pipe is a failure before it, not a result."""
        for record in records:
            self._example = self._example or record
            yield record
        if self._example is None:
            raise InputError(f"no {what} came in", hint="the command before may have failed")

    def tee(self, records: Iterable[Record], path: Path | None, *, force: bool) -> Iterator[Record]:
        """Passes records on while they are written to `path` (whole or not at all); None writes nothing."""
        if path is None or not is_first_process():
            yield from records
            return
        with atomic_path(path, force=force) as temporary, temporary.open("w", encoding="utf-8") as stream:
            for record in records:
                stream.write(dumps(record) + "\n")
                yield record

    def again(self, path: Path) -> Iterator[Record]:
        """The records of an earlier, identical run."""
        return iter(load_records(path))

    def finish(self, *outputs: tuple[Path, str] | tuple[Path, str, str], **facts: Any) -> None:
        """Writes the journal's line: outputs as (path, kind) or (path, kind, digest), and facts about all of them."""
        if self._progress is not None:
            self._progress.close()
        if not is_first_process():
            return
        self.run.inputs += self._piped_from()
        for path, kind, *digest in outputs:
            known = {"digest": digest[0]} if digest else {}
            self.run.outputs.append({"path": str(path), "kind": kind, **known, **facts})
        self.journal.append(self.run, time.monotonic() - self.started)

    def _piped_from(self) -> list[dict[str, Any]]:
        """What records that came through a pipe were made from: `sample`'s listing of them, else their checkpoint."""
        record = self._example
        if record is None or not any(i["path"] == "stdin" for i in self.run.inputs):
            return []
        folders = Path(str(record.get("path"))).parents
        if len(folders) > 2 and (folders[2] / "images.jsonl").exists():
            return [{"path": str(folders[2] / "images.jsonl")}]
        known = {"path": record.get("checkpoint"), "digest": record.get("digest")}
        return [known] if isinstance(known["path"], str) else []

    @contextlib.contextmanager
    def watching(self) -> Iterator[Progress]:
        """The progress sink, closed at the end whatever happens."""
        try:
            yield self.progress
        finally:
            self.progress.close()
