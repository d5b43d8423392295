"""How every plot of sanactl looks, and how a figure becomes a file or a part of a page.

Figures are made without pyplot, so that no global state changes and no window system is needed. `to_svg` gives an SVG
for a page: its ink is `currentColor` and its text is text, so it follows the page's font, colours and zoom. A mark with
a `tip` shows its values when a pointer is over it.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.files.atomic import atomic_path
from sanactl.report.text import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLORS",
    "DASHES",
    "GREY",
    "INK",
    "color_of",
    "end_at_one",
    "figure_style",
    "panels",
    "save_figure",
    "tip",
    "to_svg",
]

INK = "#1b1f24"
# Middle tones: each at least 3:1 against white and against #16191d, the grounds of a page, and no two look alike.
COLORS = (
    "#3d82d9", "#d9742b", "#2a9d72", "#b562b8", "#d64550", "#9a8400", "#1f9bb0", "#e0559a", "#a8693f", "#6f9a1d",
)  # fmt: skip
GREY = "#858c96"
# A second difference between lines, for readers who see no difference between two colours.
DASHES = ("", "6 3", "2 2", "8 3 2 3", "12 3", "4 1", "1 3", "10 2 2 2 2 2")
WIDE, NARROW = 9.6, 3.7  # inches; a page shows them about 1.1 times as large, 10 pt text as 14 px
STYLE: Any = {  # matplotlib's own type for it is a dict with 300 literal keys
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "font.size": 10,
    "grid.alpha": 0.18,
    "grid.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.color": INK,
    # A checkpoint's name with a dollar sign in it is a name, not a formula.
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
_TIP = "tip:"


def color_of(place: int) -> str:
    """The colour of the series at a place; the eleventh and later ones are grey."""
    return COLORS[place] if place < len(COLORS) else GREY


@contextlib.contextmanager
def figure_style() -> Iterator[None]:
    """The style, while a figure is made or written."""
    import matplotlib

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # The page's or viewer's font draws what matplotlib's own lacks (Chinese names).
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def panels(
    rows: int, columns: int, height: float, *, narrow: bool = False, **kwargs: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side, row by row.

    Args:
        height: inches.
        narrow: for a narrow screen.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(NARROW if narrow else WIDE, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **kwargs).flat)


def end_at_one(axis: Axes, values: Iterable[float]) -> None:
    """Scores from 0 to 1 have an axis that does not go beyond; one score alone has the axis from 0 to 1.

    Args:
        axis: with all that is on it drawn.
        values: every score, and the ends of its interval.
    """
    ends = list(values)
    if not ends or min(ends) < 0 or max(ends) > 1:
        return
    low, high = axis.get_ylim() if min(ends) < max(ends) else (0.0, 1.0)
    axis.set_ylim(max(low, 0.0), min(high, 1.0))
    for line in axis.lines:
        line.set_clip_on(False)  # a mark at the end is whole


def tip(artist: Any, text: str) -> None:
    """What a mark shows when a pointer is over it."""
    artist.set_gid(_TIP + plain(text, 300))


def save_figure(figure: Figure, path: Path, *, force: bool = False) -> None:
    """Writes a figure on white ground, whole or not at all, in the format of the path's suffix."""
    for artist in figure.findobj(lambda a: str(a.get_gid() or "").startswith(_TIP)):
        artist.set_gid(None)  # in a file of its own it would be an id, with spaces in it
    with atomic_path(path, force=force) as temporary, figure_style():
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=150, facecolor="white")


def to_svg(figure: Figure, name: str, description: str) -> str:
    """A figure as an SVG element to stand in a page, the same bytes every time.

    Args:
        name: letters and digits, one of its own for each figure of a page: the prefix of the element ids in
            it.
        description: what is to be seen, for readers who do not see it.
    """
    import matplotlib

    buffer = io.StringIO()
    with figure_style(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(rf'\bid="{_TIP}([^"]*)"', r'class="tip" data-tip="\1"', svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    label = plain(description, 200).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    tag, rest = svg.split(">", 1)
    tag = re.sub(r'\s(width|height)="[^"]*"', "", tag)
    return f'{tag} role="img" aria-label="{label}">{rest.rstrip()}'
