"""Reading JSON lines from untrusted files, with limits; writing JSON lines.

A file that the user names must be a regular file: a named pipe may wait for a writer without end, and a device may have
no end. Files that the shell has opened for this process (/dev/stdin, and /dev/fd/63 of `<(command)`) can be anything.
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
from sanactl.files.json_values import what_is_wrong
from sanactl.files.paths import to_json

__all__ = [
    "MAX_DEPTH", "MAX_LINE", "NOT_UTF8", "dump_json", "is_open_already", "lines_of", "open_lines", "parse_json",
]  # fmt: skip

MAX_LINE = 4 * 2**20  # characters
MAX_DEPTH = 64
MAX_DIGITS = 309  # of a whole number; longer ones are larger than the largest float

_OPEN_ALREADY = re.compile(r"/dev/(stdin|fd/[0-9]+)|/proc/(self|thread-self|[0-9]+)/fd/[0-9]+")
# Only such numbers can be too large for a float; without one, the parser's faster path is used.
_WIDE = re.compile(r"[eE]\+?[0-9]{2}|(?<![0-9])[0-9]{299}")
# Python's `surrogateescape` reads a byte that is not UTF-8 as one of these half characters.
NOT_UTF8 = re.compile("[\ud800-\udfff]")
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def is_open_already(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a file that is open in this process already: stdin, or a process substitution."""
    return _OPEN_ALREADY.fullmatch(os.fspath(path)) is not None


def open_lines(path: Path, what: str = "file") -> IO[str]:
    """Open a file of lines. A byte that is not UTF-8 becomes a lone surrogate, so the error can name its line.

    Args:
        path: a regular file, /dev/null, or a file that is open already.
        what: what the error calls a missing file ("prompt file").

    Raises:
        InputError: it is missing, a folder, a named pipe or a device, or cannot be read.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait. Regular files are not affected.
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
        f"{path}: {_KINDS.get(kind, 'something else')}, not a file",
        hint=f"to read from it, give - and put it on stdin: < {path}",
    )


def lines_of(stream: Iterable[str] | IO[str]) -> Iterator[str]:
    """The lines of a stream. A line of a file is cut a little beyond `MAX_LINE`, so that no line fills the memory."""
    readline = getattr(stream, "readline", None)
    return iter(stream) if readline is None else iter(lambda: readline(MAX_LINE + 2), "")


def parse_json(text: str) -> Any:
    """Parse JSON that every other reader of JSON also accepts.

    Raises:
        ValueError: it is not JSON, contains a number too large for a float, NaN or half a character, or is nested deeper
            than `MAX_DEPTH`. The message can be shown to the user.
    """
    wide: dict[str, Any] = {"parse_int": _whole, "parse_float": _float} if _WIDE.search(text) else {}
    try:
        value = json.loads(text, parse_constant=_no_number, **wide)
    except json.JSONDecodeError as error:
        said = what_is_wrong(error)
        raise ValueError(f"{said[:1].lower()}{said[1:]}, at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    # JSON can contain half of a surrogate pair as an escape, but it is not a character.
    if "\\u" in text and NOT_UTF8.search(json.dumps(value, ensure_ascii=False)):
        raise ValueError("half of a surrogate pair, which is not a character")
    return value


def dump_json(value: Any) -> str:
    """A value as one line of JSON that can be encoded as UTF-8, without the newline.

    A file name with bytes that are not UTF-8 becomes a `file:` URI (see `sanactl.files.paths`). NaN and infinities are
    refused, because JSON does not have them.
    """
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if line.isascii() or not NOT_UTF8.search(line):
        return line
    return json.dumps(to_json(value), ensure_ascii=False, allow_nan=False)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


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
