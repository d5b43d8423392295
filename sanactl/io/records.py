"""Records: one JSON object a line, UTF-8, each with a `kind`. The stream that sanactl's commands pass on.

A filter keeps the fields that it does not know. Reading is bounded (a line, a file) and names the line at fault.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from sanactl.errors import InputError

__all__ = ["KINDS", "Record", "dumps", "load_records", "read_records", "write_records"]

Record = dict[str, Any]
KINDS = ("checkpoint", "block", "prompt", "image", "score")
# The fields without which a record of a kind is of no use.
REQUIRED = {
    "checkpoint": ("path",),
    "block": ("checkpoint", "digest", "block", "importance"),
    "prompt": ("prompt",),
    "image": ("path", "prompt"),
    "score": ("metric",),
}
MAX_LINE = 4 * 2**20
# Files are opened with errors="surrogateescape": a byte that is no UTF-8 is then found in its own line.
NOT_UTF8 = re.compile("[\ud800-\udfff]")


def dumps(record: Record) -> str:
    """A record as one line of JSON, without the line's end. NaN and infinities are refused: they are no JSON."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False)


def read_records(
    stream: Iterable[str] | IO[str],
    name: str,
    *,
    kinds: tuple[str, ...] = KINDS,
    default_kind: str | None = None,
) -> Iterator[Record]:
    """Reads records as they arrive.

    Args:
        stream: lines of text; a file is best opened with `errors="surrogateescape"`.
        name: what to call the stream in an error ("stdin", a file's name).
        kinds: those that are wanted; another known kind is passed over in silence, an unknown one is an error.
        default_kind: what an object without a `kind` is (a GenEval metadata line is a prompt), or None to refuse it.

    Raises:
        InputError: a line is no JSON object, too long, of no known kind, or lacks a required field.
    """
    for number, line in enumerate(_lines(stream), 1):
        if number == 1:
            line = line.removeprefix("\ufeff")
        if not line.strip():
            continue
        record = _parse(line, f"{name}, line {number}", default_kind)
        if record["kind"] in kinds:
            yield record


def _lines(stream: Iterable[str] | IO[str]) -> Iterator[str]:
    """The lines; of a file never more than a little past `MAX_LINE` of one, so that no line fills the memory."""
    readline = getattr(stream, "readline", None)
    return iter(stream) if readline is None else iter(lambda: readline(MAX_LINE + 2), "")


def _parse(line: str, where: str, default_kind: str | None) -> Record:
    if len(line) > MAX_LINE:
        raise InputError(f"{where}: longer than {MAX_LINE >> 20} MiB; not a record")
    if NOT_UTF8.search(line):
        raise InputError(f"{where}: not UTF-8 text")
    try:
        record = json.loads(line, parse_constant=_no_number)
        if "\\u" in line:
            # Half of a surrogate pair can be escaped in JSON, but is no character and cannot be written again.
            dumps(record).encode()
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where}: not JSON ({error})", hint="one record is one JSON object on one line"
        ) from None
    if not isinstance(record, dict):
        raise InputError(f"{where}: a JSON {type(record).__name__}, not an object with a kind")
    kind = record.get("kind", default_kind)
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"{where}: kind {kind!r} is none of {', '.join(KINDS)}")
    for field in REQUIRED[kind]:
        if field not in record:
            raise InputError(f"{where}: a {kind} record without {field!r}")
        if field in ("path", "prompt", "checkpoint", "metric") and not isinstance(record[field], str):
            raise InputError(f"{where}: {field!r} of a {kind} record must be text")
    return {"kind": kind, **record}


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def load_records(
    path: Path, *, kinds: tuple[str, ...] = KINDS, default_kind: str | None = None
) -> list[Record]:
    """All records of a file.

    Raises:
        InputError: the file cannot be read, or a line is bad.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as stream:
            return list(read_records(stream, str(path), kinds=kinds, default_kind=default_kind))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def write_records(records: Iterable[Record], path: Path, *, force: bool = False) -> None:
    """Writes a file of records, whole or not at all."""
    from sanactl.io.atomic import atomic_path

    with atomic_path(path, force=force) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(dumps(record) + "\n")
