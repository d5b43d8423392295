"""Records and prompts from stdin and other pipes.

With several processes (`torchrun`, `accelerate launch`), the first reads stdin for all of them. If nothing comes for some
time, a note says what the command waits for.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from sanactl.cli.frame.board import the_board
from sanactl.cli.frame.terminal import is_first_process, note
from sanactl.errors import InputError, SanactlError
from sanactl.records.jsonl import is_open_already
from sanactl.records.prompt_tables import is_table, split_column
from sanactl.records.prompts import (
    load_prompts,
    parse_column,
    parse_prompts,
    stream_prompt_file,
    stream_prompts,
)
from sanactl.records.records import MAX_HELD, Record, read_records

__all__ = [
    "announced",
    "first_reads_alone",
    "held_files",
    "is_stdin",
    "prompt_stream",
    "prompts_of",
    "stdin_is_piped",
    "stdin_prompts",
    "stdin_records",
]

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


def stdin_is_piped() -> bool:
    """Whether stdin is a pipe or a file, from which records may come (a terminal or /dev/null is neither)."""
    try:
        mode = os.fstat(0).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


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


def stdin_prompts(column: str | None = None) -> list[Record]:
    """All of stdin as a prompt file: plain text or JSONL, or with a column a table."""

    def read() -> list[Record]:
        with _patience("stdin"), _open_stdin() as stream:
            return parse_prompts(stream, "stdin") if column is None else parse_column(stream, "stdin", column)

    return _shared(read)


def prompt_stream(argument: str | None, kinds: tuple[str, ...] = ("prompt",)) -> Iterator[Record]:
    """The prompts of a file, or of stdin for None and "-", as they come; see `sanactl.records.prompts.stream_prompts`.

    A file is read once before, so that a bad line is found before the work on earlier lines.

    Args:
        kinds: of JSONL records, those to yield.
    """
    name, column = split_column(argument or "-")
    if is_stdin(name) and column is not None:
        return iter(stdin_prompts(column))
    if argument is not None and is_table(argument):
        return iter(prompts_of(argument))
    if argument is None or is_stdin(argument):
        return announced(_stdin_prompts(kinds), "stdin")
    path = Path(argument)
    if is_open_already(argument):
        return announced(stream_prompt_file(path, kinds), argument)
    for _ in stream_prompt_file(path, kinds):
        pass
    return stream_prompt_file(path, kinds)


def _stdin_prompts(kinds: tuple[str, ...]) -> Iterator[Record]:
    with _open_stdin() as stream:
        try:
            yield from stream_prompts(stream, "stdin", kinds=kinds)
        except OSError as error:
            raise InputError(f"stdin: cannot be read ({error.strerror})") from None


def prompts_of(path: str) -> list[Record]:
    """The prompts of a file, or of a process substitution of the shell (`<(command)`)."""
    with _patience(path) if is_open_already(path) else contextlib.nullcontext():
        return load_prompts(Path(path))


@contextlib.contextmanager
def held_files(paths: Sequence[Path]) -> Iterator[tuple[list[Path], dict[Path, str]]]:
    """The same paths, with files of the bytes of stdin (`-`) and of process substitutions in place of these.

    Yields:
        the paths, and what the user calls the new ones; those files are there in the body.

    Raises:
        InputError: stdin cannot be read.
        SanactlError: the system's folder for temporary files cannot hold it.
    """
    import tempfile

    if not any(is_stdin(str(path)) or is_open_already(path) for path in paths):
        yield list(paths), {}
        return
    with tempfile.TemporaryDirectory(prefix="sanactl-") as folder:
        found: list[Path] = []
        names: dict[Path, str] = {}
        held: dict[str, Path] = {}
        for path in paths:
            name = "stdin" if is_stdin(str(path)) else str(path)
            if name == "stdin" or is_open_already(path):
                if name not in held:
                    held[name] = Path(folder, str(len(held)))
                    _hold(0 if name == "stdin" else path, name, held[name])
                names[held[name]] = name
            found.append(held.get(name, path))
        yield found, names


def _hold(source: int | Path, name: str, target: Path) -> None:
    """Copies a pipe to its end into a new file."""
    try:
        with (
            _patience(name) as timer,
            open(source, "rb", closefd=not isinstance(source, int)) as stream,
            target.open("wb") as copy,
        ):
            while block := _read_block(stream, name):
                copy.write(block)
                timer.cancel()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SanactlError(
            f"{name} cannot be held in {target.parent} ({reason})",
            hint="name files in place of a pipe, or name another folder with TMPDIR",
        ) from None


def _read_block(stream: IO[bytes], name: str) -> bytes:
    try:
        return stream.read(1 << 20)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({(error.strerror or str(error)).lower()})") from None


def _open_stdin() -> IO[str]:
    return open(0, encoding="utf-8", errors="surrogateescape", closefd=False)


def _own_records(kinds: tuple[str, ...], default_kind: str | None, most: int | None) -> Iterator[Record]:
    with _open_stdin() as stream:
        yield from announced(
            read_records(stream, "stdin", kinds=kinds, default_kind=default_kind, most=most), "stdin"
        )


def announced(records: Iterator[Record], name: str) -> Iterator[Record]:
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
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _alone:
        return read()
    from sanactl.model.processes import broadcast

    return broadcast(read() if is_first_process() else [])
