"""Finding a command's input: an argument, stdin, or the folder's journal.

The first of these is used: the argument (or `-`), a pipe on stdin, the newest suitable output in the folder's journal, the
built-in world. A note on stderr names it.

With several processes (`torchrun`, `accelerate launch`), the first reads stdin for all of them, and only it writes.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Literal

from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.given import with_components
from sanactl.checkpoint.open import Checkpoint, open_checkpoint
from sanactl.cli.frame.board import the_board
from sanactl.cli.frame.stdout import silence_stdout, write_line
from sanactl.cli.frame.terminal import is_first_process, say
from sanactl.errors import InputError, SanactlError, UsageError
from sanactl.records.journal import Journal
from sanactl.records.jsonl import is_open_already
from sanactl.records.prompts import load_prompts, parse_prompts
from sanactl.records.records import MAX_HELD, Record, load_records, read_records, stream_records

__all__ = [
    "find_checkpoint",
    "find_records",
    "first_reads_alone",
    "is_first_process",
    "is_stdin",
    "note",
    "prompts_of",
    "silence_stdout",
    "stdin_is_piped",
    "stdin_prompts",
    "stdin_records",
    "stdout_is_piped",
    "write_line",
]  # fmt: skip

# Seconds of waiting for a pipe after which a note says so.
ANNOUNCE_AFTER = 60.0

_alone = False  # see `first_reads_alone`


@contextlib.contextmanager
def first_reads_alone() -> Iterator[None]:
    """In the body, the first of several processes reads records for itself. The others must not read any."""
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


def note(line: str) -> None:
    """One line for people, on stderr."""
    if is_first_process():
        say(line)


def stdin_is_piped() -> bool:
    """Whether stdin is a pipe or a file, from which records may come (a terminal or /dev/null is neither)."""
    try:
        mode = os.fstat(0).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def stdout_is_piped() -> bool:
    """Whether another command reads stdout."""
    try:
        return stat.S_ISFIFO(os.fstat(1).st_mode)
    except (OSError, ValueError):
        return False


def is_stdin(argument: str | None) -> bool:
    """Whether an argument names stdin: `-`, or one of the system's names for it."""
    return argument in ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")


def stdin_records(
    kinds: tuple[str, ...], default_kind: str | None = None, *, most: int | None = None
) -> Iterator[Record]:
    """Records from stdin as they arrive. If nothing comes for some seconds, a note says so once.

    Args:
        kinds: the kinds to yield.
        default_kind: the kind of an object without a kind.
        most: the most characters allowed, for a caller that holds all records in memory.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not _alone:
        return iter(_shared(lambda: list(_own_records(kinds, default_kind, MAX_HELD))))
    return _own_records(kinds, default_kind, most)


def stdin_prompts() -> list[Record]:
    """All of stdin as a prompt file: plain text or JSONL."""

    def read() -> list[Record]:
        with _patience("stdin"), _open_stdin() as stream:
            return parse_prompts(stream, "stdin")

    return _shared(read)


def prompts_of(path: str) -> list[Record]:
    """The prompts of a file, or of a process substitution of the shell (`<(command)`)."""
    with _patience(path) if is_open_already(path) else contextlib.nullcontext():
        return load_prompts(Path(path))


def _open_stdin() -> IO[str]:
    return open(0, encoding="utf-8", errors="surrogateescape", closefd=False)


def _own_records(kinds: tuple[str, ...], default_kind: str | None, most: int | None) -> Iterator[Record]:
    with _open_stdin() as stream:
        yield from _announced(
            read_records(stream, "stdin", kinds=kinds, default_kind=default_kind, most=most), "stdin"
        )


def _announced(records: Iterator[Record], name: str) -> Iterator[Record]:
    """The records of a pipe; if the first comes late, a note says so once."""
    with _patience(name) as timer:
        for record in records:
            timer.cancel()
            yield record


@contextlib.contextmanager
def _patience(name: str) -> Iterator[threading.Timer]:
    """After some seconds, print a note about what the command waits for.

    A command of a pipe on a terminal is silent: the command before it shows what it does.
    """
    line = f"waiting for {'records on stdin (a pipe); </dev/null if none will come' if name == 'stdin' else name}"
    timer = threading.Timer(ANNOUNCE_AFTER, note, [line])
    timer.daemon = True
    if name == "stdin" and os.isatty(0):
        note("waiting for records on stdin, which is this terminal; Ctrl-D ends them")
    elif the_board() is None:
        timer.start()
    try:
        yield timer
    finally:
        timer.cancel()


def _shared(read: Callable[[], list[Record]]) -> list[Record]:
    """The first process's result of `read`, on every process; they share stdin, and each would read only a part."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return read()
    from sanactl.model.processes import broadcast

    return broadcast(read() if is_first_process() else [])


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
            return _announced(stream_records(Path(argument), kinds=kinds), argument), "stdin"
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
