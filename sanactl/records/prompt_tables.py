"""Reading prompts from a column of a table: CSV, TSV, Parquet or JSON, such as PartiPrompts.tsv and MJHQ's meta_data.json.

`FILE#COLUMN` names the column. Without it a column named prompt, text or caption is taken, in this order, in any case of letters.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from sanactl.errors import InputError
from sanactl.records.fields import FIELDS
from sanactl.records.jsonl import MAX_LINE, NOT_UTF8, lines_of, open_lines, parse_json
from sanactl.records.prompt_columns import Row, find_column, no_column, parquet_rows
from sanactl.records.records import MAX_HELD, Record, check_record

__all__ = ["is_table", "parse_table", "read_table", "split_column"]

_IDS = ("id", "item_id", "prompt_id")
MAX_JSON = 2**28  # characters of a JSON file that is one value
_ENDS = (".csv", ".tsv", ".json", ".parquet")
# Fields of other records mean something to the commands that come after, so that a column of such a name is left out.
_TAKEN = {name for fields in FIELDS.values() for name in fields} - {*FIELDS["prompt"]} | {"kind"}


def split_column(name: str) -> tuple[str, str | None]:
    """`FILE#COLUMN` as a file and a column; None where no column is named. A `#` in a file's name is no separator."""
    if "#" not in name or os.path.lexists(name):
        return name, None
    parts = name.split("#")
    for count in range(len(parts) - 1, 0, -1):
        if os.path.lexists(file := "#".join(parts[:count])) or file == "-":
            return file, "#".join(parts[count:])
    file, _, column = name.rpartition("#")
    return file, column


def is_table(name: str) -> bool:
    """Whether a name is one of a table, by its ending or since it names a column."""
    file, column = split_column(name)
    return column is not None or file.lower().endswith(_ENDS)


def read_table(path: Path, column: str | None) -> Iterator[Record]:
    """Prompt records from a file, without a new `id`.

    Columns named id, item_id or prompt_id give the `id`. Other columns are fields of the records, unless records have a
    field of this name for something else. Rows of equal `id` and prompt that follow each other are one record, with the
    fields that are equal in all.

    Args:
        path: of any form if `column` is given, else a file that ends in .csv, .tsv, .parquet or .json.
        column: of the prompts; None to find it.

    Raises:
        InputError: it cannot be read, is damaged or too large, has no such column, or a row has no prompt.
    """
    if column is not None and not column.strip():
        raise InputError(f"{path}#: names no column", hint="FILE#COLUMN, such as PartiPrompts.tsv#Prompt")
    end = path.suffix.lower()
    if end == ".parquet":
        yield from _records(parquet_rows(path, column), column)
        return
    with open_lines(path, "prompt file") as stream:
        try:
            yield from parse_table(stream, str(path), column, end=end)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def parse_table(
    stream: Iterable[str] | IO[str], name: str, column: str | None, *, end: str = ""
) -> Iterator[Record]:
    """Prompt records from the lines of a CSV, TSV or JSON table; see `read_table`.

    Args:
        name: what errors call it.
        end: how the file's name ends; "" to see from the first line what it is.
    """
    lines = _lines(stream, name)
    blank, first = 0, ""
    for first in lines:
        if first.strip():
            break
        blank += 1
    every = _chain(first, lines)
    is_json = end == ".json" or (end not in _ENDS and first.lstrip()[:1] in ("{", "["))
    if is_json:
        rows = _json_rows(every, name, blank)
    else:
        rows = _csv_rows(every, name, blank, "\t" if end == ".tsv" else _delimiter(first))
    yield from _records(rows, column)


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _lines(stream: Iterable[str] | IO[str], name: str) -> Iterator[str]:
    total = 0
    for number, line in enumerate(lines_of(stream), 1):
        total += len(line)
        if len(line) > MAX_LINE or total > MAX_HELD:
            raise InputError(f"{name}, line {number}: too much text for a table of prompts")
        if NOT_UTF8.search(line):
            raise InputError(f"{name}, line {number}: not UTF-8 text")
        yield line.removeprefix("\ufeff") if number == 1 else line


# Rows


def _delimiter(first: str) -> str:
    """What separates the columns of a header: a comma, or what it has more of."""
    return max((",", ";", "\t"), key=first.count)


def _csv_rows(lines: Iterator[str], name: str, before: int, delimiter: str) -> Iterator[Row]:
    if delimiter != "\t":
        yield from _split_rows(lines, name, before, delimiter, csv.QUOTE_MINIMAL)
        return
    held = list(lines)
    try:
        rows = list(_split_rows(held, name, before, delimiter, csv.QUOTE_MINIMAL))
    except InputError:
        # Tab-separated files are often written without quoting; then a quotation mark is a character as any other.
        yield from _split_rows(held, name, before, delimiter, csv.QUOTE_NONE)
        return
    yield from rows


def _split_rows(lines: Iterable[str], name: str, before: int, delimiter: str, quoting: Any) -> Iterator[Row]:
    reader = csv.reader(lines, strict=True, delimiter=delimiter, quoting=quoting)
    header: list[str] | None = None
    start = before + 1
    try:
        for values in reader:
            where, start = f"{name}, line {start}", before + reader.line_num + 1
            if not values:
                continue
            if header is None:
                header = [value.strip() for value in values]
            elif len(values) != len(header):
                raise InputError(
                    f"{where}: {len(values)} cells, where the first line names {len(header)} columns",
                    hint='a cell with a comma in it stands in quotes: "red, round"',
                )
            else:
                yield where, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise InputError(f"{name}, line {start}: not CSV ({error})") from None


def _json_rows(lines: Iterator[str], name: str, before: int) -> Iterator[Row]:
    """Rows of JSON lines, of a list of objects or texts, or of an object of objects, whose keys are the ids."""
    held: list[str] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size > MAX_JSON:
            raise InputError(
                f"{name}: more than {MAX_JSON >> 20} MiB of JSON", hint="give it as CSV or Parquet"
            )
    try:
        value = parse_json("".join(held))
    except ValueError as error:
        if not held[0].lstrip().startswith("{") or sum(bool(line.strip()) for line in held) < 2:
            raise InputError(f"{name}: not JSON ({error})") from None
        yield from _json_lines(held, name, before)
        return
    if isinstance(value, list):
        rows = [(f"{name}, item {number}", item) for number, item in enumerate(value, 1)]
    elif isinstance(value, dict) and value and all(isinstance(item, dict) for item in value.values()):
        rows = [(f"{name}, {key[:60]!r}", {"id": key, **item}) for key, item in value.items()]
    else:
        rows = [(name, value)]
    for where, item in rows:
        yield where, _object(where, {"prompt": item} if isinstance(item, str) else item)


def _json_lines(lines: list[str], name: str, before: int) -> Iterator[Row]:
    for number, line in enumerate(lines, before + 1):
        if not line.strip():
            continue
        try:
            value = parse_json(line)
        except ValueError as error:
            raise InputError(f"{name}, line {number}: not JSON ({error})") from None
        yield f"{name}, line {number}", _object(f"{name}, line {number}", value)


def _object(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: a JSON {type(value).__name__}, not an object with a prompt")
    return value


# Records


def _records(rows: Iterable[Row], column: str | None) -> Iterator[Record]:
    held: Record | None = None
    for where, cells in rows:
        record = _record(where, cells, column)
        if (
            held is not None
            and "id" in record
            and _same(held, record, "id")
            and _same(held, record, "prompt")
        ):
            held = {name: value for name, value in held.items() if _same(held, record, name)}
            continue
        if held is not None:
            yield held
        held = record
    if held is not None:
        yield held


def _same(one: Record, other: Record, name: str) -> bool:
    return name in one and name in other and bool(one[name] == other[name])


def _record(where: str, cells: Mapping[str, Any], column: str | None) -> Record:
    chosen = column if column is not None else find_column(cells)
    if chosen is None or chosen not in cells:
        raise no_column(where, column, cells)
    text = cells[chosen]
    if isinstance(text, str):
        text = text.strip()
    if text is None or text == "":
        raise InputError(f"{where}: no prompt in column {chosen!r}")
    if not isinstance(text, str):
        raise InputError(f"{where}: column {chosen!r} has a {type(text).__name__}, not text")
    record: Record = {"kind": "prompt"}
    fits: dict[str, Callable[[Any], bool]] = {k: field.fits for k, field in FIELDS["prompt"].items()}
    named = next(
        (n for wanted in _IDS for n in cells if n.casefold() == wanted and cells[n] not in (None, "")), ""
    )
    if named and fits["id"](cells[named]):
        record["id"] = cells[named]
    for name, value in cells.items():
        if name in (chosen, "", "id", "prompt") or name in _TAKEN or value is None or value == "":
            continue
        if (name in fits and not fits[name](value)) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            continue
        record[name] = value
    return check_record({**record, "prompt": text}, where)
