"""What a section of a report is made of. Templates turn these into HTML and escape every text in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

__all__ = ["Absent", "Block", "Cell", "Heading", "Note", "Plot", "Section", "Table", "cell", "measured"]


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what it shows.
        small: lines below it, in small print.
        order: what the table is sorted by; by default the text.
        color: of a dot before the text, the one that the checkpoint has in the plots.
        wide: a sentence that needs room.
    """

    text: str
    small: tuple[str, ...] = ()
    order: float | None = None
    strong: bool = False
    code: bool = False
    color: str | None = None
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """Rows that a reader can sort and filter; the first cell of each is the row's name."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Plot:
    """A plot, drawn for a wide and for a narrow screen.

    Attributes:
        wide, narrow: SVG elements.
        legend: (colour, dash pattern of the line, what it stands for) of each series; the page shows it above the plot.
        caption: a sentence about it.
    """

    wide: str
    narrow: str
    legend: Sequence[tuple[str, str, str]] = ()
    caption: str = ""
    kind: ClassVar[str] = "plot"


@dataclass(frozen=True)
class Heading:
    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Note:
    text: str
    kind: ClassVar[str] = "note"


@dataclass(frozen=True)
class Absent:
    """In place of what no record tells: what is missing, and which command makes it."""

    what: str
    how: str = ""
    kind: ClassVar[str] = "absent"


# Those above, and the grids of images and the drawings of lineage, which have modules of their own.
Block = Any


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    anchor: str
    title: str
    blocks: Sequence[Block] = field(default_factory=list)


def cell(value: object, **options: Any) -> Cell:
    """A cell with a text; a number is sorted as one."""
    from sanactl.report.text import finite, number

    if isinstance(value, str):
        return Cell(value, **options)
    return Cell(number(value), order=finite(value), **options)


def measured(value: object, interval: object = None, unit: object = None, *, strong: bool = False) -> Cell:
    """A value, and below it its interval."""
    from sanactl.report.text import finite, interval_of, number

    ends = interval_of(interval)
    small = () if ends is None else (f"{ends[0]:.2f} to {ends[1]:.2f}",)
    text = number(value) + (f" {unit}" if isinstance(unit, str) else "")
    return Cell(text, small, finite(value), strong)
