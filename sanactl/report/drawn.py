"""A plot for a page: one figure function drawn twice, for wide and for narrow screens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sanactl.report.blocks import Plot
from sanactl.report.style import DASHES, color_of, to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw", "line_legend"]

Legend = Sequence[tuple[str, str, str]]


def draw(
    figure: Callable[[bool], Figure], name: str, description: str, *, legend: Legend = (), caption: str = ""
) -> Plot:
    """Draws a figure for a wide and for a narrow screen.

    Args:
        figure: makes it; its argument says whether it is the narrow one.
        name: letters and digits, its own on the page.
        description: what is to be seen, for readers who do not see it.
        legend: (colour, dashes, text) of each series.
        caption: a sentence below it.
    """
    wide, narrow = to_svg(figure(False), name, description), to_svg(figure(True), f"{name}n", description)
    return Plot(wide, narrow, legend, caption)


def line_legend(names: Sequence[str]) -> list[tuple[str, str, str]]:
    """The legend of lines in their order, as `curves` draws them."""
    return [(color_of(place), DASHES[place % len(DASHES)], name) for place, name in enumerate(names)]
