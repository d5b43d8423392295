"""Reading prompt files: plain text with one prompt a line, JSONL prompt records, GenEval's metadata lines, or tables.

A line that begins with `#` and a space is a comment, in text and in JSONL."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from sanactl.errors import InputError
from sanactl.records.jsonl import MAX_LINE, NOT_UTF8, lines_of, open_lines, parse_json
from sanactl.records.nearby import near_file
from sanactl.records.prompt_columns import find_column
from sanactl.records.prompt_tables import is_table, parse_table, read_table, split_column
from sanactl.records.records import MAX_HELD, Record, read_records

__all__ = [
    "as_meant",
    "check_prompts",
    "load_prompts",
    "meant_prompt",
    "number_prompts",
    "numbered",
    "parse_column",
    "parse_prompts",
    "stream_prompt_file",
    "stream_prompts",
]

MAX_PROMPT = 20_000  # characters
MAX_PROMPTS = 1_000_000


def parse_prompts(lines: Iterable[str] | IO[str], name: str) -> list[Record]:
    """Prompt records from lines: JSONL if the first line with content begins with a brace, else plain text.

    Blank lines and comments (`# ...`) have no content. A JSON object has a `prompt` or a `text`. Each record gets an `id`:
    its own, or its place as five digits.

    Raises:
        InputError: a JSONL line is bad, plain text and JSON are mixed, a prompt is too long, or there are too many prompts or none.
    """
    return _held(stream_prompts(lines, name, most=MAX_HELD), name)


def parse_column(lines: Iterable[str] | IO[str], name: str, column: str) -> list[Record]:
    """Prompt records from the lines of a CSV, TSV or JSON table; see `sanactl.records.prompt_tables.read_table`."""
    return _held(parse_table(lines, name, column), name)


def _held(found: Iterator[Record], name: str) -> list[Record]:
    records = list(itertools.islice(found, MAX_PROMPTS + 1))
    if not records:
        raise InputError(f"{name}: no prompts in it")
    check_prompts(records, name)
    return number_prompts(records)


def stream_prompts(
    lines: Iterable[str] | IO[str],
    name: str,
    *,
    kinds: tuple[str, ...] = ("prompt",),
    most: int | None = None,
) -> Iterator[Record]:
    """Prompt records as their lines come, of any length and number, without a new `id`; see `parse_prompts`.

    Args:
        kinds: of JSONL records, those to yield; an object without a kind is a prompt.
        most: the most characters allowed, for a caller that holds all records in memory; None for no limit.

    Raises:
        InputError: a line is bad.
    """
    # Leading blank lines stay in the count, so that errors name the right line.
    source, blank, first = map(_without_comment, lines_of(lines)), 0, ""
    for first in source:
        if first.strip("\ufeff \t\r\n"):
            break
        blank += 1
        if blank > MAX_PROMPTS:
            raise InputError(f"{name}: no prompts in its first {MAX_PROMPTS:,} lines")
    every = itertools.chain(itertools.repeat("\n", blank), (first,), source)
    if first.lstrip("\ufeff \t").startswith("{"):
        yield from read_records(every, name, kinds=kinds, default_kind="prompt", most=most)
    else:
        yield from _plain(every, name, most)


def _without_comment(line: str) -> str:
    """The line, or an empty line for a comment, so that lines keep their numbers."""
    text = line.lstrip("\ufeff \t")
    return "\n" if text.startswith("#") and (len(text) == 1 or text[1].isspace()) else line


def _plain(lines: Iterable[str], name: str, most: int | None) -> Iterator[Record]:
    total, begins = 0, True
    for number, line in enumerate(lines, 1):
        if NOT_UTF8.search(line):
            raise InputError(f"{name}, line {number}: not UTF-8 text")
        total += len(line)
        if len(line) > MAX_LINE or (most is not None and total > most):
            raise InputError(f"{name}, line {number}: too much text for a file of prompts")
        if prompt := line.strip("\ufeff \t\r\n"):
            if number == 1 and "\t" in prompt and find_column(prompt.split("\t")):
                raise InputError(
                    f"{name} looks like a table, with a column {find_column(prompt.split(chr(9)))!r}",
                    hint="name the column: FILE#COLUMN, or -#COLUMN on stdin",
                )
            if prompt[0] in "{[":
                _refuse_json(prompt, f"{name}, line {number}", begins)
            begins = False
            yield {"kind": "prompt", "prompt": prompt}


def _refuse_json(text: str, where: str, begins: bool) -> None:
    """Refuse JSON where plain text is read: it would be drawn as the words that it consists of."""
    if begins and (text == "[" or text[1:].lstrip().startswith(("{", '"'))):
        raise InputError(
            f"{where}: a JSON array, and prompts are one a line",
            hint="jq -c '.[]' FILE makes lines of it; FILE#COLUMN takes a field of its objects",
        )
    try:
        found = parse_json(text.rstrip(","))
    except ValueError:
        return
    if isinstance(found, dict):
        raise InputError(
            f"{where}: a JSON object, but the lines before it are plain text",
            hint="a file of prompts has one plain prompt a line, or one JSON object a line",
        )


def check_prompts(records: list[Record], name: str) -> None:
    """Refuse too many or too long prompts.

    Raises:
        InputError: there are too many, or one is too long.
    """
    if len(records) > MAX_PROMPTS:
        raise InputError(f"{name}: more than {MAX_PROMPTS:,} prompts", hint="give fewer of them")
    for number, record in enumerate(records, 1):
        if len(record["prompt"]) > MAX_PROMPT:
            raise InputError(f"{name}, prompt {number}: longer than {MAX_PROMPT:,} characters")


def numbered(records: Iterable[Record]) -> Iterator[Record]:
    """The records as they come, each prompt with an `id`: its own, or its place in the list as five digits."""
    for place, record in enumerate(records):
        named = record.get("id") is not None or record["kind"] != "prompt"
        yield record if named else {**record, "id": f"{place:05d}"}


def number_prompts(records: list[Record]) -> list[Record]:
    """`numbered`, as a list."""
    return list(numbered(records))


def load_prompts(path: Path) -> list[Record]:
    """Prompt records from a file, or from the column of a table (`FILE#COLUMN`, or a file that ends as tables do).

    Raises:
        InputError: see `parse_prompts` and `sanactl.records.prompt_tables.read_table`; also if it cannot be read.
    """
    if is_table(str(path)):
        file, column = split_column(str(path))
        return _held(read_table(Path(file), column), file)
    with open_lines(path, "prompt file") as stream:
        try:
            return parse_prompts(stream, str(path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def stream_prompt_file(path: Path, kinds: tuple[str, ...] = ("prompt",)) -> Iterator[Record]:
    """The records of a file, as `stream_prompts` gives them. The file is opened immediately.

    A relative image path that names nothing here is taken from the file's place (see `near_file`).

    Raises:
        InputError: the file cannot be read (raised immediately), or a line is bad (raised when it is reached).
    """
    stream = open_lines(path, "prompt file")

    def read() -> Iterator[Record]:
        with stream:
            try:
                yield from near_file(stream_prompts(stream, str(path), kinds=kinds), path)
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror})") from None

    return read()


def as_meant(record: Record) -> Record:
    """The record with `meant_prompt` as its prompt: what a judge is asked about."""
    meant = meant_prompt(record)
    return record if meant == record["prompt"] else {**record, "prompt": meant}


def meant_prompt(record: Mapping[str, Any]) -> str:
    """What an image of this record must show, in words: the prompt before it was translated or rewritten."""
    return str(record.get("prompt_original") or record["prompt"])
