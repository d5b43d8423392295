"""Records: one JSON object a line, UTF-8, each with a `kind`. The stream that sanactl's commands pass on.

A filter keeps the fields that it does not know. Reading is bounded (a line, what is held of a file) and names the line
and the field at fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from sanactl.errors import InputError
from sanactl.records.fields import FIELDS, REQUIRED, check_fields, with_paths
from sanactl.records.jsonl import MAX_LINE, NOT_UTF8, dump_json, lines_of, open_lines, parse_json

__all__ = [
    "KINDS", "MAX_HELD", "Record", "dumps", "load_records", "read_records", "stream_records", "write_records",
]  # fmt: skip

Record = dict[str, Any]
KINDS = ("checkpoint", "block", "prompt", "image", "score")
# Characters of records that a command holds at once; in memory they take several times as much.
MAX_HELD = 2**30
SHORTEST = 128  # characters that a line counts for at least, so that empty ones come to an end, too


def dumps(record: Record) -> str:
    """A record as one line of JSON, without the line's end; see `dump_json`."""
    return dump_json(record)


def read_records(
    stream: Iterable[str] | IO[str],
    name: str,
    *,
    kinds: tuple[str, ...] = KINDS,
    default_kind: str | None = None,
    most: int | None = None,
) -> Iterator[Record]:
    """Reads records as they arrive.

    Args:
        stream: lines of text; a file is best opened by `open_lines`.
        name: what to call the stream in an error ("stdin", a file's name).
        kinds: those that are wanted; another known kind is passed over in silence, an unknown one is an error.
        default_kind: what an object without a `kind` is (a GenEval metadata line is a prompt), or None to refuse it.
        most: how many characters may come, for a reader that holds all of them; None for one that does not.

    Yields:
        records whose fields of `FIELDS` are of their types, or null, or absent.

    Raises:
        InputError: a line is no JSON object, too long, of no known kind, lacks a required field, or a field is of a wrong
            type; or more than `most` characters have come.
    """
    total = 0
    for number, line in enumerate(lines_of(stream), 1):
        total += max(len(line), SHORTEST)
        if most is not None and total > most:
            raise InputError(
                f"{name}: more than {most >> 20:,} MiB of records, too many to hold at once",
                hint="give a part of them, such as the first 100,000: head -n 100000",
            )
        line = line.removeprefix("\ufeff")  # files that begin with a mark may have been put together by cat
        if not line.strip():
            continue
        record = _parse(line, f"{name}, line {number}", default_kind)
        if record["kind"] in kinds:
            yield record


def _parse(line: str, where: str, default_kind: str | None) -> Record:
    if len(line) > MAX_LINE:
        raise InputError(f"{where}: longer than {MAX_LINE >> 20} MiB; not a record")
    if NOT_UTF8.search(line):
        raise InputError(f"{where}: not UTF-8 text")
    try:
        record = parse_json(line)
    except ValueError as error:
        raise InputError(
            f"{where}: not JSON ({error})", hint="one record is one JSON object on one line"
        ) from None
    if not isinstance(record, dict):
        raise InputError(f"{where}: a JSON {type(record).__name__}, not an object with a kind")
    kind = record.get("kind", default_kind)
    if kind == "prompt" and "prompt" not in record and isinstance(record.get("text"), str):
        # Prompt lists of other tools and `datasets` call it so.
        record = {"prompt": record["text"], **{k: v for k, v in record.items() if k != "text"}}
    if not isinstance(kind, str) or kind not in KINDS:
        shown = dumps({"kind": kind})[9:-1]
        raise InputError(f"{where}: kind {shown[:60]} is none of {', '.join(KINDS)}")
    try:
        check_fields(FIELDS[kind], record, REQUIRED[kind])
    except ValueError as error:
        raise InputError(f"{where}: {'an' if kind == 'image' else 'a'} {kind} record {error}") from None
    return {"kind": kind, **with_paths(FIELDS[kind], record)}


def stream_records(
    path: Path, *, kinds: tuple[str, ...] = KINDS, default_kind: str | None = None, most: int | None = None
) -> Iterator[Record]:
    """The records of a file, one after the other; the file is opened at once.

    Raises:
        InputError: the file cannot be read, or a line is bad (said when it is reached).
    """
    stream = open_lines(path)

    def read() -> Iterator[Record]:
        with stream:
            try:
                yield from read_records(stream, str(path), kinds=kinds, default_kind=default_kind, most=most)
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror})") from None

    return read()


def load_records(
    path: Path, *, kinds: tuple[str, ...] = KINDS, default_kind: str | None = None
) -> list[Record]:
    """All records of a file, of at most `MAX_HELD` characters.

    Raises:
        InputError: the file cannot be read or is too large, or a line is bad.
    """
    return list(stream_records(path, kinds=kinds, default_kind=default_kind, most=MAX_HELD))


def write_records(records: Iterable[Record], path: Path, *, force: bool = False) -> None:
    """Writes a file of records, whole or not at all."""
    from sanactl.files.atomic import atomic_path

    with atomic_path(path, force=force) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(dumps(record) + "\n")
