"""Writing results of a measurement as JSON lines, each flushed at once, and as Markdown tables."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["Rows", "read_rows", "tables"]

Row = dict[str, Any]

# Fields that are not columns of a table, because they are in its heading or are the same in all rows.
_HEADING = ("part", "table")


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
        with self.file.open("ab") as file:
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


def tables(rows: Iterable[Row]) -> str:
    """The rows as Markdown tables, in the order of their first rows."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row.get("table", "")), []).append(row)
    blocks = []
    for name, group in groups.items():
        columns = list(dict.fromkeys(key for row in group for key in row if key not in _HEADING))
        lines = [f"| {' | '.join(c.replace('_', ' ') for c in columns)} |", "|" + "---|" * len(columns)]
        lines += [f"| {' | '.join(_cell(row.get(column)) for column in columns)} |" for row in group]
        blocks.append("\n".join([f"### {name}", "", *lines]))
    return "\n\n".join(blocks) + "\n"


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
