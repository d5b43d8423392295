"""JSON lines from files that nobody vouches for: what is opened, how much of it is read, what counts as JSON.

A file that is named has to be a regular file: a named pipe waits for a writer for ever, and a device has no end. What
the shell has opened for this process (/dev/stdin, and /dev/fd/63 of `<(command)`) is read whatever it is.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from sanactl.errors import InputError
from sanactl.files.paths import to_json

__all__ = [
    "MAX_DEPTH", "MAX_LINE", "NOT_UTF8", "dump_json", "is_open_already", "lines_of", "open_lines", "parse_json",
]  # fmt: skip

MAX_LINE = 4 * 2**20  # characters
MAX_DEPTH = 64
MAX_DIGITS = 309  # of a whole number; more than this is beyond the largest float

_OPEN_ALREADY = re.compile(r"/dev/(stdin|fd/[0-9]+)|/proc/(self|thread-self|[0-9]+)/fd/[0-9]+")
# Only such a number can be too large for a float; the others are read by the parser's own fast path.
_WIDE = re.compile(r"[eE]\+?[0-9]{2}|(?<![0-9])[0-9]{299}")
# What Python reads for a byte that is no UTF-8: the half characters of `surrogateescape`.
NOT_UTF8 = re.compile("[\ud800-\udfff]")
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def is_open_already(path: str | os.PathLike[str]) -> bool:
    """Whether a path names something that this process was given open: stdin, or a process substitution."""
    return _OPEN_ALREADY.fullmatch(os.fspath(path)) is not None


def open_lines(path: Path, what: str = "file") -> IO[str]:
    """Opens a file of lines; a byte that is no UTF-8 becomes a lone surrogate, to be found in its own line.

    Args:
        path: a regular file, /dev/null, or what is open already.
        what: what to call it where it is missing ("prompt file").

    Raises:
        InputError: there is none, it is a folder, a named pipe or a device, or it may not be read.
    """
    try:
        # Without O_NONBLOCK a named pipe would wait right here. It changes nothing for regular files.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise InputError(f"{path}: no such {what}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    try:
        _check_kind(os.fstat(descriptor), path)
        os.set_blocking(descriptor, True)
        return open(descriptor, encoding="utf-8", errors="surrogateescape")
    except BaseException:
        os.close(descriptor)
        raise


def _check_kind(found: os.stat_result, path: Path) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFREG:
        return
    if kind == stat.S_IFDIR:
        raise InputError(f"{path}: cannot be read (it is a folder)")
    if is_open_already(path):
        return
    with contextlib.suppress(OSError):
        if kind == stat.S_IFCHR and found.st_rdev == os.stat(os.devnull).st_rdev:
            return
    raise InputError(
        f"{path}: {_KINDS.get(kind, 'no regular file')}, not a file",
        hint=f"to read from it, give - and put it on stdin: < {path}",
    )


def lines_of(stream: Iterable[str] | IO[str]) -> Iterator[str]:
    """The lines; of a file never more than a little past `MAX_LINE` of one, so that no line fills the memory."""
    readline = getattr(stream, "readline", None)
    return iter(stream) if readline is None else iter(lambda: readline(MAX_LINE + 2), "")


def parse_json(text: str) -> Any:
    """A JSON value that every other reader of JSON takes, too.

    Raises:
        ValueError: it is no JSON, holds a number that no float can hold, NaN or half a character, or is nested deeper
            than `MAX_DEPTH`. Its message is for people.
    """
    wide: dict[str, Any] = {"parse_int": _whole, "parse_float": _float} if _WIDE.search(text) else {}
    try:
        value = json.loads(text, parse_constant=_no_number, **wide)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg[:1].lower()}{error.msg[1:]}, at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    # Half of a surrogate pair can be escaped in JSON, but is no character.
    if "\\u" in text and NOT_UTF8.search(json.dumps(value, ensure_ascii=False)):
        raise ValueError("half of a surrogate pair, which is no character")
    return value


def dump_json(value: Any) -> str:
    """A value as one line of JSON that can be encoded as UTF-8, without the line's end.

    A file's name may hold bytes that are no UTF-8; it becomes a `file:` URI (see `paths`). NaN and infinities are
    refused: they are no JSON.
    """
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if line.isascii() or not NOT_UTF8.search(line):
        return line
    return json.dumps(to_json(value), ensure_ascii=False, allow_nan=False)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS + 1:
        raise ValueError(f"a number of {len(digits):,} digits")
    value = int(digits)
    _float(digits)
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:24]}{'...' if len(digits) > 24 else ''} is too large")
    return value


def _check_depth(value: Any) -> None:
    stack = [(value, 1)]
    while stack:
        thing, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        inner = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, list) else ()
        stack += [(part, depth + 1) for part in inner if isinstance(part, dict | list)]
