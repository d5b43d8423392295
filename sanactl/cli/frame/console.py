"""A rich console for data: text is never read as markup, and no control character reaches the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from sanactl.cli.frame.terminal import safe

__all__ = ["PlainConsole", "data", "figure", "show_rows"]

# In a terminal with fewer columns, a table that does not fit is written as lines.
NARROW = 60
# The least width of tables and drawings, in columns.
NARROWEST = 20


class PlainConsole(Console):
    """Prints to stdout, or to stderr.

    Text is data, never markup: `[bold]` is six characters. The output has no control characters except rich's own, even
    where a caller forgets `data`.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        # The stream for libraries removes escape codes, so rich writes to the stream below it.
        file = getattr(sys.stderr, "uncleaned", None) if stderr else None
        super().__init__(stderr=stderr, file=file, markup=False, emoji=False, highlight=False)
        if self.width < NARROWEST:
            self.width = NARROWEST

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(safe(text, lines=True), **options)

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=safe(segment.text, lines=True))

    def on_broken_pipe(self) -> None:
        """Rich would end the program with exit code 1."""
        raise BrokenPipeError


def data(value: object, style: str = "", *, longest: int | None = None) -> Text:
    """Text from a file as rich's Text: safe, in one line, cut after `longest` characters."""
    text = safe(value)
    if longest is not None and len(text) > longest:
        text = text[: longest - 3] + "..."
    return Text(text, style=style, overflow="fold")


def figure(value: object, form: str) -> str:
    """A number from a record in a Python format; anything else unchanged, for `data`."""
    return (
        format(value, form) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
    )


def show_rows(
    console: Console,
    headings: Sequence[str],
    rows: Iterable[Sequence[Text | str]],
    *,
    right: Sequence[int] = (),
    title: Text | None = None,
) -> None:
    """Print a table without a frame; on a narrow terminal, each row becomes lines of `heading value`.

    Args:
        headings: all empty if the rows are names and values. A column without any value is left out.
        right: columns that are aligned to the right.
        title: printed above the table.
    """
    listed = [list(row) for row in rows]
    # A column without a value says nothing; the first one names the rows.
    filled = [p for p in range(len(headings)) if p == 0 or any(str(row[p]).strip() for row in listed)]
    right = [new for new, old in enumerate(filled) if old in right]
    headings = [headings[place] for place in filled]
    listed = [[row[place] for place in filled] for row in listed]
    # The head of a table that is longer than the screen has left it when the command ends: it is repeated below.
    long = console.is_terminal and len(listed) > console.height - 4
    table = Table(box=None, title=title, show_header=any(headings), show_footer=long and any(headings))
    for place, heading in enumerate(headings):
        table.add_column(
            heading,
            footer=heading if long else "",
            justify="right" if place in right else "left",
            overflow="fold",
        )
    for row in listed:
        table.add_row(*row)
    # A column of prose may be folded, but not one of numbers; names and values get along with less.
    enough = NARROW if any(headings) else NARROW * 2 // 3
    if console.width >= enough or _natural_width(console, table) <= console.width:
        console.print(table)
        return
    if title is not None:
        console.print(title)
    for row in listed:
        if not any(headings):
            console.print(Text(" ").join(Text(c) if isinstance(c, str) else c for c in row), overflow="fold")
            continue
        for heading, cell in zip(headings, row, strict=True):
            if str(cell):
                console.print(
                    Text.assemble((f"{heading} " if heading else "", "bold"), cell), overflow="fold"
                )
        console.print()


def _natural_width(console: Console, table: Table) -> int:
    """Columns of a terminal in which no cell of the table is folded."""
    return Measurement.get(console, console.options.update_width(10_000), table).maximum
