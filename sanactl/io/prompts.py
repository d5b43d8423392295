"""Prompt files: one prompt a line, JSONL prompt records, or GenEval's metadata lines as they are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sanactl.errors import InputError
from sanactl.io.records import NOT_UTF8, Record, read_records

__all__ = ["load_prompts", "number_prompts", "parse_prompts"]

MAX_PROMPT = 20_000


def parse_prompts(lines: Iterable[str], name: str) -> list[Record]:
    """Prompt records from lines: JSONL if the first line that is not blank begins with a brace, else plain text.

    Each gets an `id` (its own, or its place as five digits).

    Raises:
        InputError: a bad JSONL line, a prompt that is too long, or no prompt at all.
    """
    kept = []
    for number, line in enumerate(lines, 1):
        if NOT_UTF8.search(line):
            raise InputError(f"{name}, line {number}: not UTF-8 text")
        kept.append(line.rstrip("\r\n"))
    first = next((line for line in kept if line.strip()), "")
    if first.lstrip("\ufeff \t").startswith("{"):
        records = list(read_records(kept, name, kinds=("prompt",), default_kind="prompt"))
    else:
        records = [{"kind": "prompt", "prompt": line.strip("\ufeff \t")} for line in kept if line.strip()]
    if not records:
        raise InputError(f"{name}: no prompts in it")
    for number, record in enumerate(records, 1):
        if len(record["prompt"]) > MAX_PROMPT:
            raise InputError(f"{name}, prompt {number}: longer than {MAX_PROMPT:,} characters")
    return number_prompts(records)


def number_prompts(records: list[Record]) -> list[Record]:
    """The records, each with an `id`: its own, or its place in the list."""
    return [r if "id" in r else {**r, "id": f"{i:05d}"} for i, r in enumerate(records)]


def load_prompts(path: Path) -> list[Record]:
    """Prompt records from a file.

    Raises:
        InputError: see `parse_prompts`; also if the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as stream:
            return parse_prompts(stream, str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such prompt file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
