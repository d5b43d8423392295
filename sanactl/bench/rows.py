"""Writing results of a measurement as JSON lines, each flushed at once, and as Markdown tables."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["FAULTS", "PARTS", "Rows", "done_parts", "read_rows", "tables"]

Row = dict[str, Any]

# Fields that are not columns of a table, because they are in its heading or are the same in all rows.
_HEADING = ("part", "table")
# Fields that are measured; the other texts and whole numbers say of what. Numbers with a fraction are always measured.
_MEASURED = ("value", "fault", "outcome", "launches")
# Tables of the run itself, which come last.
PARTS, FAULTS = "parts", "faults"


class Rows:
    """Appends the rows of one part to a file; several processes may append to one file.

    Args:
        file: one JSON object a line.
        part: the name that every row has.
    """

    def __init__(self, file: Path, part: str) -> None:
        self.file, self.part = file, part

    def add(self, table: str, **fields: Any) -> None:
        """Append one row and flush it to the disk. Numbers that are not finite become null."""
        row = {"part": self.part, "table": table, **{k: _plain(v) for k, v in fields.items()}}
        line = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
        with self.file.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":  # a kill cut the last line short, which must not cost this one
                    line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def read_rows(file: Path) -> list[Row]:
    """The complete rows; a last line that a kill cut short is left out."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for line in file.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict) and "part" in row:
                    found.append(row)
    return found


def done_parts(rows: Iterable[Row], on: str) -> set[str]:
    """The parts that were done to their end on a device of this name."""
    return {str(row["part"]) for row in rows if row.get("table") == PARTS and row.get("on") == on}


def tables(rows: Iterable[Row]) -> str:
    """The rows as Markdown tables, in the order of their first rows.

    Of rows that measure the same, as a part that was started again makes them, the last counts. A fault of a part that
    was done later is left out.
    """
    given = list(rows)
    done = {row["part"]: number for number, row in enumerate(given) if row.get("table") == PARTS}
    groups: dict[str, dict[tuple[Any, ...], Row]] = {}
    for number, row in enumerate(given):
        table = str(row.get("table", ""))
        if table != FAULTS or number > done.get(row["part"], -1):
            groups.setdefault(table, {})[_subject(row)] = row
    blocks = []
    for name in sorted(groups, key=lambda name: name in (PARTS, FAULTS)):
        group = list(groups[name].values())
        columns = list(dict.fromkeys(key for row in group for key in row if key not in _HEADING))
        lines = [f"| {' | '.join(c.replace('_', ' ') for c in columns)} |", "|" + "---|" * len(columns)]
        lines += [f"| {' | '.join(_cell(row.get(column)) for column in columns)} |" for row in group]
        blocks.append("\n".join([f"### {name}", "", *lines]))
    return "\n\n".join(blocks) + "\n"


def _subject(row: Row) -> tuple[Any, ...]:
    """What a row is about."""
    return tuple((k, v) for k, v in row.items() if isinstance(v, str | int) and k not in _MEASURED)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return str(value).replace("|", "\\|").replace("\n", " ")
