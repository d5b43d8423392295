"""Plots of curves: the loss of training by step, a score along an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sanactl.report.plots import said
from sanactl.report.style import DASHES, GREY, color_of, end_at_one, figure_style, panels, tip
from sanactl.report.text import compact, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Point", "curves_figure", "training_figure"]

MAX_POINTS = 400
MAX_TICKS = 16
MAX_TIPS = 48  # marks with values along a curve


@dataclass(frozen=True)
class Point:
    """A point of a curve: where on the axis, the value, its interval or None."""

    at: float
    value: float
    ci: tuple[float, float] | None = None


def training_figure(curves: Mapping[str, Sequence[tuple[int, float]]], *, narrow: bool = False) -> Figure:
    """Loss by step, each curve pale as it is and strong as the mean over a twentieth of the run.

    Args:
        curves: for each run (step, loss), in order of steps.
    """
    from matplotlib.ticker import MaxNLocator

    with figure_style():
        figure, (axis,) = panels(1, 1, 3.2, narrow=narrow)
        for number, (name, points) in enumerate(curves.items()):
            steps, means = _smooth(points)
            every = max(1, len(points) // MAX_POINTS)
            axis.plot(*zip(*points[::every], strict=True), color=color_of(number), alpha=0.25, linewidth=1)
            _line(axis, number, [Point(s, m) for s, m in zip(steps, means, strict=True)], f"{name}, step")
        axis.set(xlabel="step", ylabel="loss" if narrow else "loss (velocity, mean squared error)")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        return figure


def _line(axis: Axes, number: int, points: Sequence[Point], name: str, marker: str = "") -> None:
    """One series, with marks that tell their values; no more than MAX_TIPS of them."""
    dashes = [float(length) / 2 for length in DASHES[number % len(DASHES)].split()]
    style = (0, tuple(dashes)) if dashes else "-"
    at, values = [p.at for p in points], [p.value for p in points]
    axis.plot(at, values, color=color_of(number), linewidth=2, linestyle=style, marker=marker)
    for point in points[:: max(1, -(-len(points) // MAX_TIPS))]:
        # Seen by the pointer alone.
        (mark,) = axis.plot([point.at], [point.value], "o", color=color_of(number), markersize=11, alpha=0)
        tip(mark, said(f"{name} {point.at:,.6g}", point.value, point.ci))


def _smooth(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """Means over a twentieth of the points, around at most MAX_POINTS of them; cut off at both ends."""
    import numpy as np

    total = np.concatenate([[0.0], np.cumsum([loss for _, loss in points])])
    places = np.unique(np.linspace(0, len(points) - 1, min(len(points), MAX_POINTS)).astype(int))
    reach = len(points) // 40
    starts, ends = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(points))
    return [points[place][0] for place in places], list((total[ends] - total[starts]) / (ends - starts))


def curves_figure(
    curves_of: Mapping[str, Mapping[str, Sequence[Point]]],
    axis: str,
    values: Mapping[str, float | None],
    *,
    narrow: bool = False,
    amounts: bool = False,
) -> Figure:
    """Curves along an axis, a panel a checkpoint: best of n against n, on a log2 axis where the places span it.

    Args:
        curves_of: for each checkpoint its curves by name, their points in the order of their places, all above 0.
        axis: what the places are.
        values: for each checkpoint the value of the score itself; a dashed line where a curve begins with it.
        amounts: whether places are large numbers, such as FLOPs, each curve with its own.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    names = list(dict.fromkeys(name for curves in curves_of.values() for name in curves))
    with figure_style():
        columns = 1 if narrow else min(2, len(curves_of))
        rows = -(-len(curves_of) // columns)
        figure, axes = panels(rows, columns, (2.6 if narrow else 3.3) * rows, narrow=narrow, sharey=True)
        for ax, (title, curves) in zip(axes, curves_of.items(), strict=False):
            places = sorted({point.at for curve in curves.values() for point in curve})
            firsts = {curve[0].value: curve[0].at for curve in curves.values()}
            value = values.get(title)
            if value is not None and value in firsts and len(places) > 1:
                ax.axhline(value, color=GREY, linewidth=1.4, linestyle=(0, (5, 3)))
            for name, curve in sorted(curves.items(), key=lambda item: names.index(item[0])):
                number = names.index(name)
                at = [point.at for point in curve]
                bounds = [point.ci for point in curve if point.ci is not None]
                if len(bounds) == len(curve):
                    low, high = zip(*bounds, strict=True)
                    ax.fill_between(at, low, high, color=color_of(number), alpha=0.15, linewidth=0)
                _line(ax, number, curve, f"{name}, {axis}", "o")
            if places[-1] >= 4 * places[0]:
                ax.set_xscale("log", base=10 if amounts else 2)
            if amounts:
                if ax.get_xscale() == "log" and places[-1] < 1e4 * places[0]:
                    ax.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
                ax.xaxis.set_major_formatter(
                    FuncFormatter(lambda place, _: compact(place).replace(" B", " G"))
                )
                ax.xaxis.set_minor_formatter(NullFormatter())
            elif len(places) <= MAX_TICKS:
                ax.xaxis.set_major_locator(FixedLocator(places))
                ax.xaxis.set_minor_locator(NullLocator())
                ax.set_xticklabels([f"{place:g}" for place in places])
            ax.set_title(plain(title, 40 if narrow else 48))
            ax.set_xlabel(plain(axis))
        every = [point for curves in curves_of.values() for curve in curves.values() for point in curve]
        end_at_one(axes[0], [end for point in every for end in (point.value, *(point.ci or ()))])
        axes[0].set_ylabel("score")
        for ax in axes[len(curves_of) :]:
            ax.set_axis_off()
        return figure
