"""Reading and writing records, the data that sanactl's commands exchange: one JSON object a line, with a `kind`.

A command that filters records keeps the fields that it does not know. The length of a line and the size of a file have
limits. Errors name the line and the field at fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from sanactl.errors import InputError
from sanactl.records.fields import FIELDS, REQUIRED, check_fields, with_paths
from sanactl.records.jsonl import MAX_LINE, NOT_UTF8, dump_json, lines_of, open_lines, parse_json
from sanactl.records.nearby import near_file

__all__ = [
    "KINDS", "MAX_HELD", "SHARD", "Record", "check_record", "dumps", "load_records", "read_records", "stream_records",
    "write_records",
]  # fmt: skip

Record = dict[str, Any]
KINDS = ("checkpoint", "block", "prompt", "image", "score")
# The kind of the record that ends the output of a shard (`sanactl.records.shards`). It is passed over where records are read.
SHARD = "shard"
# The most characters of records that a command holds at once; in memory they take several times as much.
MAX_HELD = 2**30
SHORTEST = 128  # characters; a shorter line counts as this many, so that the number of lines is limited, too


def dumps(record: Record) -> str:
    """A record as one line of JSON, without the newline; see `dump_json`."""
    return dump_json(record)


def read_records(
    stream: Iterable[str] | IO[str],
    name: str,
    *,
    kinds: tuple[str, ...] = KINDS,
    default_kind: str | None = None,
    most: int | None = None,
) -> Iterator[Record]:
    """Read records as they arrive.

    Args:
        stream: lines of text; open files with `open_lines`.
        name: what to call the stream in an error ("stdin", a file's name).
        kinds: the kinds to yield; other known kinds are skipped, an unknown kind is an error.
        default_kind: the kind of an object without a `kind` (a GenEval metadata line is a prompt), or None to refuse it.
        most: the most characters allowed, for a caller that holds all records in memory; None for no limit.

    Yields:
        records; a field of `FIELDS` has its type, or is null or absent.

    Raises:
        InputError: a line is not a JSON object, is too long, has an unknown kind, lacks a required field or has a field of
            a wrong type; or there are more than `most` characters.
    """
    total = 0
    for number, line in enumerate(lines_of(stream), 1):
        total += max(len(line), SHORTEST)
        if most is not None and total > most:
            raise InputError(
                f"{name}: more than {most >> 20:,} MiB of records, too many to hold at once",
                hint="give fewer of them, such as the first 100,000: head -n 100000",
            )
        line = line.removeprefix("\ufeff")  # a byte order mark; files with one may have been joined by cat
        if not line.strip():
            continue
        record = _parse(line, f"{name}, line {number}", default_kind)
        if record.get("kind") in kinds:
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
    return record if record.get("kind") == SHARD else check_record(record, where, default_kind)


def check_record(
    record: Mapping[str, Any],
    where: str,
    default_kind: str | None = None,
    *,
    kinds: tuple[str, ...] = KINDS,
) -> Record:
    """An object as a record: its kind and its known fields checked, its paths as the system wants them.

    Args:
        where: what to call it in an error.
        default_kind: what it is where it does not say, or None to refuse it.
        kinds: those that it may be of.

    Raises:
        InputError: it is of no such kind, lacks a required field, or a field is of a wrong type.
    """
    if not isinstance(record, Mapping):
        raise InputError(f"{where}: a {type(record).__name__}, not a record")
    kind = record.get("kind", default_kind)
    if kind == "prompt" and "prompt" not in record and isinstance(record.get("text"), str):
        # Other tools' prompt lists and `datasets` use this name.
        record = {"prompt": record["text"], **{k: v for k, v in record.items() if k != "text"}}
    if not isinstance(kind, str) or kind not in kinds:
        shown = dumps({"kind": kind})[9:-1]
        raise InputError(f"{where}: kind {shown[:60]} is none of {', '.join(kinds)}")
    try:
        check_fields(FIELDS[kind], record, REQUIRED[kind])
    except ValueError as error:
        raise InputError(f"{where}: {'an' if kind == 'image' else 'a'} {kind} record {error}") from None
    return {"kind": kind, **with_paths(FIELDS[kind], dict(record))}


def stream_records(
    path: Path, *, kinds: tuple[str, ...] = KINDS, default_kind: str | None = None, most: int | None = None
) -> Iterator[Record]:
    """The records of a file, one after the other. The file is opened immediately.

    A relative image path that names nothing here is taken from the file's place (see `near_file`).

    Raises:
        InputError: the file cannot be read (raised immediately), or a line is bad (raised when it is reached).
    """
    stream = open_lines(path)

    def read() -> Iterator[Record]:
        with stream:
            try:
                found = read_records(stream, str(path), kinds=kinds, default_kind=default_kind, most=most)
                yield from near_file(found, path)
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror})") from None

    return read()


def load_records(
    path: Path, *, kinds: tuple[str, ...] = KINDS, default_kind: str | None = None
) -> list[Record]:
    """All records of a file of at most `MAX_HELD` characters.

    Raises:
        InputError: the file cannot be read or is too large, or a line is bad.
    """
    return list(stream_records(path, kinds=kinds, default_kind=default_kind, most=MAX_HELD))


def write_records(records: Iterable[Record], path: Path, *, force: bool = False) -> None:
    """Write a file of records, whole or not at all."""
    from sanactl.files.atomic import atomic_path

    with atomic_path(path, force=force) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(dumps(record) + "\n")
