"""Every plot of sanactl. Each is drawn for a wide page, and with `narrow` for a narrow one."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError, UsageError
from sanactl.files.human import human_bytes
from sanactl.report.style import COLORS, INK, end_at_one, figure_style, panels, save_figure, tip
from sanactl.report.text import compact, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Bar",
    "importance_figure",
    "plot_importance",
    "said",
    "scores_figure",
    "sizes_figure",
]

Record = dict[str, Any]
MAX_BLOCKS = 1000
# One block that is this many times the median one leaves nothing to see of the others on a linear axis.
DWARFS = 20


@dataclass(frozen=True)
class Bar:
    """One checkpoint's value in a panel.

    Attributes:
        label: its name; a second line says what was selected of its images.
        value: the score, or where on the other axis it stands.
        color: the checkpoint's.
    """

    label: str
    value: float
    ci: tuple[float, float] | None = None
    color: str = COLORS[0]


def said(name: str, value: float, ci: tuple[float, float] | None = None) -> str:
    """The words of a tip."""
    interval = "" if ci is None else f" ({ci[0]:.3g} to {ci[1]:.3g})"
    return f"{name.replace(chr(10), ', ')}: {value:.4g}{interval}"


def importance_figure(
    records: Sequence[Record], kept: Mapping[str, Collection[int]] | None = None, *, narrow: bool = False
) -> Figure:
    """Block importance by block, a panel a checkpoint, as in figure 5 of the paper.

    The axis is logarithmic where one block is far above the others.

    Args:
        records: block records: `checkpoint`, `block` (from 0), `importance` (1 - cosine similarity of a
            block's input and output, 0 to 2) and, if it is known, its `stderr`.
        kept: for a checkpoint, the blocks that pruning kept; the others are drawn pale.
        narrow: for a narrow screen.

    Raises:
        InputError: there are no block records, or one has no number.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

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
    with figure_style():
        figure, axes = panels(len(groups), 1, 0.5 + 2.1 * len(groups), narrow=narrow)
        for axis, (name, values) in zip(axes, groups.items(), strict=True):
            blocks = sorted(values)
            stays = set((kept or {}).get(name, blocks))
            logarithmic = _dwarfed([value for value, _ in values.values()])
            floor = min(value for value, _ in values.values()) / 2 if logarithmic else 0.0
            for chosen, alpha in ((True, 1.0), (False, 0.35)):
                drawn = [b for b in blocks if (b in stays) is chosen]
                heights = [values[b][0] - floor for b in drawn]
                bars = axis.bar(drawn, heights, bottom=floor, width=0.76, color=COLORS[0], alpha=alpha)
                for block, bar in zip(drawn, bars, strict=True):
                    value, error = values[block]
                    cut = "" if chosen else ", cut"
                    tip(bar, f"block {block}{cut}: {value:.4g}" + (f" ± {error:.2g}" if error else ""))
            errors = [values[b][1] for b in blocks]
            if any(errors):
                heights = [values[b][0] for b in blocks]
                axis.errorbar(
                    blocks, heights, errors, fmt="none", ecolor=INK, elinewidth=0.6 if narrow else 1.2
                )
            dropped = f", {len(stays)} kept by pruning" if len(stays) < len(blocks) else ""
            between = ":\n" if narrow else ": "
            title = f"{plain(name, 30 if narrow else 60)}{between}{len(blocks)} blocks{dropped}"
            axis.set_title(title, fontsize=9 if narrow else None)
            if logarithmic:
                axis.set_yscale("log")
                axis.set_ylim(bottom=floor)
                axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.yaxis.set_minor_formatter(NullFormatter())
            label = "block importance" + (" (log scale)" if logarithmic else "")
            axis.set(ylabel=label, xlim=(blocks[0] - 0.8, blocks[-1] + 0.8))
            axis.xaxis.set_major_locator(MaxNLocator(5 if narrow else 10, integer=True))
        axes[-1].set_xlabel("block")
        return figure


def _dwarfed(values: Sequence[float]) -> bool:
    """Whether the largest value leaves nothing to see of the median one, and a log axis can show all."""
    median = sorted(values)[len(values) // 2]
    return min(values) > 0 and max(values) > DWARFS * median


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


def scores_figure(quantities: Mapping[str, Sequence[Bar]], *, narrow: bool = False) -> Figure:
    """Scores side by side: a panel a quantity (overall, then the tasks), a bar a checkpoint, whiskers for
    intervals. The axis is from 0 to 1 for scores in that range. Narrow, the first panel alone.
    """
    if narrow:
        quantities = dict(list(quantities.items())[:1])
    ends = [v for bars in quantities.values() for bar in bars for v in (bar.value, *(bar.ci or ()))]
    low, high = min(0.0, *ends), max(ends)
    high = max(high, 1.0) if low == 0 and high <= 1 else max(high, 0.0)
    width = high - low
    with figure_style():
        labels = list(dict.fromkeys(bar.label for bars in quantities.values() for bar in bars))
        columns = min(4, len(quantities))
        rows = -(-len(quantities) // columns)
        heights = rows * (0.7 + 0.42 * len(labels))
        figure, axes = panels(rows, columns, heights, narrow=narrow, sharex=True, sharey=True)
        for axis, (title, bars) in zip(axes, quantities.items(), strict=False):
            axis.grid(axis="y", visible=False)
            axis.grid(axis="x", visible=True)
            for bar in bars:
                place = labels.index(bar.label)
                (drawn,) = axis.barh([place], [bar.value], height=0.6, color=bar.color)
                tip(drawn, said(f"{bar.label}, {title.replace('_', ' ')}", bar.value, bar.ci))
                if bar.ci:
                    axis.plot(bar.ci, (place, place), color=INK, linewidth=1.4, solid_capstyle="butt")
                shown = f"{bar.value:.2f}" if width < 1e4 else f"{bar.value:.3g}"
                axis.text(high + 0.05 * width, place, shown, va="center", fontsize=9)
            axis.set_title(plain(title.replace("_", " ")))
            names = ["\n".join(plain(line, 32) for line in label.split("\n")) for label in labels]
            axis.set(xlim=(low, high + 0.36 * width), yticks=range(len(labels)))
            axis.set_xticks((low, low + width / 2, high), [f"{t:.3g}" for t in (low, low + width / 2, high)])
            axis.set_yticklabels(names, fontsize=9)
            axis.tick_params(axis="y", length=0)
            axis.spines["bottom"].set_bounds(low, high)
        axes[0].invert_yaxis()
        for axis in axes[len(quantities) :]:
            axis.set_axis_off()
        return figure


def sizes_figure(
    quantities: Mapping[str, Sequence[tuple[float, Bar]]], score: str, *, narrow: bool = False
) -> Figure:
    """A score against what it costs: a panel a cost, a point a checkpoint, whiskers for the score's interval.

    Args:
        quantities: for each cost with its unit, its amount (above 0) and the score of each checkpoint.
        score: the metric's name.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    columns = 1 if narrow else len(quantities)
    rows = len(quantities) if narrow else 1
    with figure_style():
        figure, axes = panels(rows, columns, rows * (2.5 if narrow else 2.9), narrow=narrow, sharey=True)
        for axis, (title, points) in zip(axes, quantities.items(), strict=True):
            for amount, bar in points:
                if bar.ci:
                    axis.plot((amount, amount), bar.ci, color=bar.color, linewidth=1.4, alpha=0.6)
                (mark,) = axis.plot([amount], [bar.value], "o", color=bar.color, markersize=9)
                tip(mark, f"{said(bar.label, bar.value, bar.ci)}; {title} {amount_text(title, amount)}")
            amounts = [amount for amount, _ in points]
            if max(amounts) > 8 * min(amounts):
                axis.set_xscale("log")
                axis.xaxis.set_minor_formatter(NullFormatter())
            else:
                axis.xaxis.set_major_locator(MaxNLocator(4))
                axis.margins(x=0.15)
            axis.xaxis.set_major_formatter(
                FuncFormatter(lambda value, _, title=title: amount_text(title, value))
            )
            axis.set_xlabel(title)
        scores = [bar for points in quantities.values() for _, bar in points]
        ends = [end for bar in scores for end in (bar.value, *(bar.ci or ()))]
        for axis in axes:
            end_at_one(axis, ends)
        for axis in axes[:: columns if columns > 1 else 1]:
            axis.set_ylabel(plain(score, 30))
        return figure


def amount_text(cost: str, amount: float) -> str:
    """An amount of a cost in short: 9.2 MB for a size, 4.6 M for parameters."""
    return human_bytes(int(amount)) if cost == "size" else compact(amount)
