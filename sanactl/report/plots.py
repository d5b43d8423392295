"""Every plot of sanactl, in one style, with colours that are clear on light and dark backgrounds.

Figures are made without pyplot, so that no global state changes and no window system is needed. `to_svg`
gives an SVG for a page: its ink is `currentColor` and its text is text, so it follows the page's font,
colours and zoom.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError, UsageError
from sanactl.files.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Point",
    "curves_figure",
    "importance_figure",
    "plain",
    "plot_importance",
    "save_figure",
    "scores_figure",
    "to_svg",
    "training_figure",
]

Record = dict[str, Any]
# (label, value, interval or None) of one bar
Bar = tuple[str, float, tuple[float, float] | None]


@dataclass(frozen=True)
class Point:
    """A point of a curve: where on the axis, the value, its interval or None."""

    at: float
    value: float
    ci: tuple[float, float] | None = None


INK = "#1b1f24"
# Middle tones: at least 3:1 against white and against #16191d; told apart by colour-blind readers too.
BLUE, ORANGE, GREEN, VIOLET, GREY = "#3d82d9", "#d9742b", "#2a9d72", "#b562b8", "#858c96"
CYCLE = (BLUE, ORANGE, GREEN, VIOLET, GREY)
WIDTH = 9.6  # inches; a page shows it about 1.1 times as large as printed, 10 pt text as 14 px
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
MAX_POINTS = 400
MAX_TICKS = 16
MAX_BLOCKS = 1000
MAX_LABEL = 48


def plain(text: object, limit: int = MAX_LABEL) -> str:
    """One line of at most `limit` characters that any encoder takes: no controls, no lone surrogates."""
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", str(text))
    return line if len(line) <= limit else line[: limit - 1] + "…"


@contextlib.contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # The page's or viewer's font draws what matplotlib's own lacks (Chinese names).
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def _panels(rows: int, columns: int, height: float, **kwargs: Any) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **kwargs).flat)


def importance_figure(records: Sequence[Record], kept: Mapping[str, Collection[int]] | None = None) -> Figure:
    """Block importance by block, a panel a checkpoint, as in figure 5 of the paper.

    Args:
        records: block records: `checkpoint`, `block` (from 0), `importance` (1 - cosine similarity of a
            block's input and output, 0 to 2) and, if it is known, its `stderr`.
        kept: for a checkpoint, the blocks that pruning kept; the others are drawn pale.

    Raises:
        InputError: there are no block records, or one has no number.
    """
    from matplotlib.ticker import MaxNLocator

    groups: dict[str, dict[int, tuple[float, float]]] = {}
    for record in records:
        try:
            value, error = float(record["importance"]), float(record.get("stderr") or 0)
            place = int(record["block"])
        except (KeyError, TypeError, ValueError, OverflowError):
            value, error, place = math.nan, 0.0, 0
        if not (math.isfinite(value) and math.isfinite(error) and 0 <= place < MAX_BLOCKS):
            raise InputError("a block record without a number for its block or importance")
        groups.setdefault(str(record["checkpoint"]), {})[place] = (value, error)
    if not groups:
        raise InputError("no block records to draw", hint="sanactl importance makes them")
    with _style():
        figure, axes = _panels(len(groups), 1, 0.5 + 2.1 * len(groups))
        for axis, (name, values) in zip(axes, groups.items(), strict=True):
            blocks = sorted(values)
            stays = set((kept or {}).get(name, blocks))
            for chosen, alpha in ((True, 1.0), (False, 0.35)):
                drawn = [b for b in blocks if (b in stays) is chosen]
                axis.bar(drawn, [values[b][0] for b in drawn], width=0.76, color=BLUE, alpha=alpha)
            errors = [values[b][1] for b in blocks]
            if any(errors):
                heights = [values[b][0] for b in blocks]
                axis.errorbar(blocks, heights, errors, fmt="none", ecolor=INK, elinewidth=1.2)
            dropped = f", {len(stays)} kept by pruning" if len(stays) < len(blocks) else ""
            axis.set_title(f"{plain(name)}: {len(blocks)} blocks{dropped}")
            axis.set(ylabel="block importance", xlim=(blocks[0] - 0.8, blocks[-1] + 0.8))
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[-1].set_xlabel("block")
        return figure


def plot_importance(
    block_records: Sequence[Record],
    path: Path,
    *,
    kept: Mapping[str, Collection[int]] | None = None,
    force: bool = False,
) -> Path:
    """Writes `importance_figure` to a .png or .svg file.

    Raises:
        UsageError: another suffix; the file exists and `force` is not set.
    """
    if path.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"{path}: a chart is written as .png or .svg")
    save_figure(importance_figure(block_records, kept), path, force=force)
    return path


def training_figure(curves: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """Loss by step, each curve pale as it is and strong as the mean over a twentieth of the run.

    Args:
        curves: for each run (step, loss), in order of steps.
    """
    from matplotlib.ticker import MaxNLocator

    with _style():
        figure, (axis,) = _panels(1, 1, 3.2)
        for number, (name, points) in enumerate(curves.items()):
            color = CYCLE[number % len(CYCLE)]
            steps, means = _smooth(points)
            every = max(1, len(points) // MAX_POINTS)
            axis.plot(*zip(*points[::every], strict=True), color=color, alpha=0.25, linewidth=1)
            # A legend leaves out what begins with an underscore.
            axis.plot(steps, means, color=color, linewidth=2, label=plain(name).replace("_", "\u200b_", 1))
        axis.set(xlabel="step", ylabel="loss (velocity, mean squared error)")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend()
        return figure


def _smooth(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """Means over a twentieth of the points, around at most MAX_POINTS of them; cut off at both ends."""
    import numpy as np

    total = np.concatenate([[0.0], np.cumsum([loss for _, loss in points])])
    places = np.unique(np.linspace(0, len(points) - 1, min(len(points), MAX_POINTS)).astype(int))
    reach = len(points) // 40
    starts, ends = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(points))
    return [points[place][0] for place in places], list((total[ends] - total[starts]) / (ends - starts))


def scores_figure(panels: Mapping[str, Sequence[Bar]]) -> Figure:
    """Scores side by side: a panel a quantity (overall, then the tasks), a bar a checkpoint, whiskers for
    intervals. The axis is from 0 to 1 for scores in that range.

    A label may have a second line, as "base.st" and what was selected of its images.
    """
    ends = [v for bars in panels.values() for _, value, interval in bars for v in (value, *(interval or ()))]
    low, high = min(0.0, *ends), max(ends)
    high = max(high, 1.0) if low == 0 and high <= 1 else max(high, 0.0)
    width = high - low
    with _style():
        labels = list(dict.fromkeys(label for rows in panels.values() for label, _, _ in rows))
        columns = min(4, len(panels))
        rows = -(-len(panels) // columns)
        figure, axes = _panels(rows, columns, rows * (0.7 + 0.42 * len(labels)), sharex=True, sharey=True)
        for axis, (title, values) in zip(axes, panels.items(), strict=False):
            axis.grid(axis="y", visible=False)
            axis.grid(axis="x", visible=True)
            for label, value, interval in values:
                place = labels.index(label)
                axis.barh(place, value, height=0.6, color=BLUE if title == "overall" else GREY)
                if interval:
                    axis.plot(interval, (place, place), color=INK, linewidth=1.4, solid_capstyle="butt")
                shown = f"{value:.2f}" if width < 1e4 else f"{value:.3g}"
                axis.text(high + 0.05 * width, place, shown, va="center", fontsize=9)
            axis.set_title(plain(title.replace("_", " ")))
            names = ["\n".join(plain(line, 32) for line in label.split("\n")) for label in labels]
            axis.set(xlim=(low, high + 0.36 * width), yticks=range(len(labels)))
            axis.set_xticks((low, low + width / 2, high), [f"{t:.3g}" for t in (low, low + width / 2, high)])
            axis.set_yticklabels(names, fontsize=9)
            axis.tick_params(axis="y", length=0)
            axis.spines["bottom"].set_bounds(low, high)
        axes[0].invert_yaxis()
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        return figure


def curves_figure(
    panels: Mapping[str, Mapping[str, Sequence[Point]]], axis: str, values: Mapping[str, float | None]
) -> Figure:
    """Curves along an axis, a panel a checkpoint: best of n against n, on a log2 axis where the places span it.

    Args:
        panels: for each checkpoint its curves by name, their points in the order of their places, all above 0.
        axis: what the places are.
        values: for each checkpoint the value of the score itself; a dashed line where a curve begins with it.
    """
    from matplotlib.ticker import FixedLocator, NullLocator

    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    with _style():
        columns = min(2, len(panels))
        rows = -(-len(panels) // columns)
        figure, axes = _panels(rows, columns, 3.3 * rows, sharey=True)
        for ax, (title, curves) in zip(axes, panels.items(), strict=False):
            places = sorted({point.at for curve in curves.values() for point in curve})
            firsts = {curve[0].value: curve[0].at for curve in curves.values()}
            value = values.get(title)
            if value is not None and value in firsts and len(places) > 1:
                label = plain(f"{axis}: {firsts[value]:g}")
                ax.axhline(value, color=GREY, linewidth=1.4, linestyle=(0, (5, 3)), label=label)
            for name, curve in curves.items():
                color = CYCLE[names.index(name) % (len(CYCLE) - 1)]
                at = [point.at for point in curve]
                bounds = [point.ci for point in curve if point.ci is not None]
                if len(bounds) == len(curve):
                    low, high = zip(*bounds, strict=True)
                    ax.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0)
                drawn = [point.value for point in curve]
                # A legend leaves out what begins with an underscore.
                shown = plain(name).replace("_", "\u200b_", 1)
                ax.plot(at, drawn, color=color, linewidth=2, marker="o", label=shown)
            if places[-1] >= 4 * places[0]:
                ax.set_xscale("log", base=2)
            if len(places) <= MAX_TICKS:
                ax.xaxis.set_major_locator(FixedLocator(places))
                ax.xaxis.set_minor_locator(NullLocator())
                ax.set_xticklabels([f"{place:g}" for place in places])
            ax.set_title(plain(title))
            ax.set_xlabel(plain(axis))
        axes[0].set_ylabel("score")
        lines = {
            label: line for ax in axes for line, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        axes[0].legend(list(lines.values()), list(lines))
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        return figure


def save_figure(figure: Figure, path: Path, *, force: bool = False) -> None:
    """Writes a figure on white ground, whole or not at all, in the format of the path's suffix."""
    with atomic_path(path, force=force) as temporary, _style():
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
    with _style(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    label = plain(description, 200).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    tag, rest = svg.split(">", 1)
    tag = re.sub(r'\s(width|height)="[^"]*"', "", tag)
    return f'{tag} role="img" aria-label="{label}">{rest}'
