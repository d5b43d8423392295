"""Showing the table of `eval all`: on stdout where that is a terminal, else on stderr."""

from __future__ import annotations

import sys

from rich.text import Text

from sanactl.cli.frame.console import PlainConsole, data, show_rows
from sanactl.scoring.table_one import HEADINGS, TableOne

__all__ = ["show_table_one"]


def show_table_one(table: TableOne) -> None:
    """The table, and a line for each way of measuring."""
    console = PlainConsole(stderr=not sys.stdout.isatty())
    rows = [(data(row[0]), *(Text(cell) for cell in row[1:])) for row in table.rows]
    show_rows(console, HEADINGS, rows, right=range(1, len(HEADINGS)))
    for note in table.notes:
        console.print(data(note), soft_wrap=True)
