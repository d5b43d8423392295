"""Finding a command's input: an argument, stdin, or the folder's journal.

The first of these is used: the argument (or `-`), a pipe on stdin, the newest suitable output in the folder's journal, the
built-in world. A note on stderr names it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.given import with_components
from sanactl.checkpoint.open import Checkpoint, open_checkpoint
from sanactl.cli.frame.stdin import announced, is_stdin, stdin_is_piped, stdin_records
from sanactl.cli.frame.terminal import note
from sanactl.errors import InputError, SanactlError, UsageError
from sanactl.records.journal import Journal
from sanactl.records.jsonl import is_open_already
from sanactl.records.records import MAX_HELD, Record, load_records, stream_records

__all__ = ["find_checkpoint", "find_records"]


def _checkpoint_of(record: Record) -> str:
    """The checkpoint that a record names."""
    return str(record["path"] if record["kind"] == "checkpoint" else record["checkpoint"])


def find_checkpoint(
    argument: str | None,
    *,
    revision: str | None = None,
    also: tuple[str, ...] = (),
    native: bool = False,
    builtin: bool = True,
    components: str | None = None,
) -> tuple[Checkpoint, list[Record]]:
    """The checkpoint to work on, and the records that came through the pipe with it.

    Checkpoint records and block records name it. The pipe may also have records of the kinds in `also` (prompts for
    `sample`, images for `finetune`), and is read for them even if the checkpoint is an argument. If options name them
    already, `also` is empty, and stdin is not read.

    Args:
        argument: the command line's, or None.
        revision: of a Hub id.
        also: further kinds of records to read from the pipe.
        native: whether a file in SANA's native layout is allowed.
        builtin: whether to use the built-in base if there is nothing else.
        components: of --components; see `sanactl.checkpoint.given`.

    Raises:
        UsageError: there is no checkpoint, and `builtin` is false.
        InputError: it is not a SANA checkpoint, or the pipe had no record of one.
    """
    found, records = _found(argument, revision, also, native, builtin)
    return (with_components(found, components) if components else found), records


def _found(
    argument: str | None, revision: str | None, also: tuple[str, ...], native: bool, builtin: bool
) -> tuple[Checkpoint, list[Record]]:
    # A line of GenEval's metadata has no kind, and is a prompt.
    untold = "prompt" if "prompt" in also else None
    if argument is not None and not is_stdin(argument):
        found = open_checkpoint(argument, revision=revision, native=native)
        return found, list(stdin_records(also, untold, most=MAX_HELD)) if also and stdin_is_piped() else []
    if argument is not None or stdin_is_piped():
        records = list(stdin_records(("checkpoint", "block", *also), untold, most=MAX_HELD))
        if not records:
            raise InputError(
                f"stdin brought no {' or '.join(('checkpoint', *also))} record",
                hint="the command before may have failed; else name a checkpoint",
            )
        named = [r for r in records if r["kind"] in ("checkpoint", "block")]
        if named:
            return open_checkpoint(_checkpoint_of(named[-1]), revision=revision, native=native), records
        return _remembered_checkpoint(builtin)[0], records
    return _remembered_checkpoint(builtin)


def _remembered_checkpoint(builtin: bool) -> tuple[Checkpoint, list[Record]]:
    """The newest checkpoint or importance of the folder's journal, else the built-in base."""
    journal = Journal()
    newest = journal.newest("checkpoint", "block")
    if newest is not None:
        path = journal.relative(newest["path"])
        if newest["kind"] == "block":
            records = load_records(Path(path), kinds=("block",))
            if records:
                found = open_checkpoint(_checkpoint_of(records[0]))
                note(f"using {found.path} with {path}, the newest in this folder's journal")
                return found, records
        else:
            note(f"using {path}, the newest checkpoint in this folder's journal")
            return open_checkpoint(path), []
    if not builtin:
        raise UsageError(
            "no checkpoint: name a file, a folder or a Hub id", hint="this folder's journal knows none"
        )
    note("using the built-in shapes base")
    return open_checkpoint(asset("base.st")), []


def find_records(
    argument: str | None,
    kinds: tuple[str, ...],
    *,
    what: str,
    hint: str | None = None,
    checked: bool = True,
    prefer: Literal["judged", "unjudged"] | None = None,
    missing: str = "prompts",
    plain: bool = False,
) -> tuple[Iterator[Record], str]:
    """A stream of records and its name.

    Args:
        argument: a JSONL file, a folder of images in GenEval's layout, `-`, or None.
        kinds: the kinds to yield; the journal is searched for the first one.
        what: what an error calls them ("images to judge").
        hint: the command that makes such records, for that error.
        prefer: of the journal's image records, the newest that a judge has selected from, or that none has; without
            such, or with None, the newest.
        missing: of a folder, what is an error; see `read_geneval_folder`.
        plain: whether a folder may be of images alone, in any layout.
        checked: read the whole file first, so that a bad line is found before the work on earlier lines.

    Raises:
        UsageError: there is no input at all.
        InputError: the input cannot be read.
    """
    if argument is not None and not is_stdin(argument):
        if "image" in kinds and os.path.isdir(argument):
            from sanactl.records.geneval_folder import is_geneval_folder, read_geneval_folder
            from sanactl.records.image_folder import read_image_folder

            if plain and not is_geneval_folder(Path(argument)):
                return read_image_folder(Path(argument)), argument
            return read_geneval_folder(Path(argument), missing=missing), argument
        if is_open_already(argument):
            # Its name is not valid after this process has ended.
            return announced(stream_records(Path(argument), kinds=kinds), argument), "stdin"
        return _of_file(Path(argument), kinds, checked), argument
    if argument is not None or stdin_is_piped():
        return stdin_records(kinds), "stdin"
    journal = Journal()
    fits = None if prefer is None else lambda path: _is_judged(path) is not (prefer == "unjudged")
    newest = journal.newest(kinds[0], fits=fits)
    chosen = f"the newest {f'{prefer} ' if prefer and newest is not None else ''}{kinds[0]} records"
    newest = newest or journal.newest(kinds[0])
    if newest is None:
        raise UsageError(
            f"no {what}: name a file of records, or pipe them in", hint=hint or "sanactl sample makes some"
        )
    path = journal.relative(newest["path"])
    note(f"using {path}, {chosen} in this folder's journal")
    return _of_file(Path(path), kinds, checked), path


def _is_judged(path: Path) -> bool | None:
    """Whether a judge has selected from the image records of a file, by its first record; None if it cannot be read."""
    try:
        return "judge" in next(stream_records(path, kinds=("image",)), {})
    except SanactlError:
        return None  # it is taken, and reading it gives the error


def _of_file(path: Path, kinds: tuple[str, ...], checked: bool) -> Iterator[Record]:
    if checked:
        for _ in stream_records(path, kinds=kinds):
            pass
    return stream_records(path, kinds=kinds)
