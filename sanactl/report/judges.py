"""How far judges can be trusted: their figures against labels, and reliability diagrams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sanactl.report.blocks import Block, Cell, Heading, Note, Table, measured
from sanactl.report.curves import Point
from sanactl.report.drawn import draw, line_legend
from sanactl.report.plots import said
from sanactl.report.run import RunRecords, newest
from sanactl.report.style import DASHES, GREY, color_of, figure_style, panels, tip
from sanactl.report.text import counted, finite, interval_of, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["judges_section"]

Record = dict[str, Any]
MAX_JUDGES = 8
MAX_FIGURES = 40
MAX_TASKS = 12
MAX_POINTS = 64
_PREFIX = "judge_"
_RELIABILITY = "judge_reliability"


def judges_section(run: RunRecords) -> list[Block]:
    """For each judge a reliability diagram and its figures by task."""
    groups: dict[str, list[Record]] = {}
    for record in newest(run.judges):
        key = repr([record.get(f) for f in ("judge", "dialogue", "dtype", "truth", "detector", "prompts")])
        groups.setdefault(key, []).append(record)
    parts: list[Block] = []
    for place, mine in enumerate(list(groups.values())[-MAX_JUDGES:]):
        parts += _of_judge(mine, place)
    return parts


def _of_judge(records: Sequence[Record], place: int) -> list[Block]:
    about = records[-1]
    facts = [str(about[f]) for f in ("dialogue", "dtype") if about.get(f)]
    facts += [f"labels: {about[f]}" for f in ("detector",) if about.get(f)]
    facts += [counted(about[f], f[:-1]) for f in ("images", "prompts") if type(about.get(f)) is int]
    parts: list[Block] = [Heading(plain(about["judge"], 80)), Note(plain(", ".join(facts), 300))]
    for record in records:
        curves = _curves(record) if record["metric"] == _RELIABILITY else {}
        if curves:
            legend = [*line_legend(list(curves)), (GREY, DASHES[1], "predicted as often as right")]
            parts.append(
                draw(
                    partial(_diagram, curves),
                    f"reliability{place}",
                    "share of right images against the predicted probability",
                    legend=legend,
                    caption="Each point is a group of images with similar predicted probabilities. All groups have the same size. "
                    "Bands cover 95 %.",
                )
            )
    tasks = list(dict.fromkeys(str(t) for r in records for t in _tasks(r)))[:MAX_TASKS]
    rows = []
    for record in records[-MAX_FIGURES:]:
        if record["metric"] == _RELIABILITY:
            continue
        of = _tasks(record)
        name = str(record["metric"]).removeprefix(_PREFIX).replace("_", " ")
        if record.get("difference"):
            name += f" ({record['difference']})"
        cells = [measured(of[t].get("value"), of[t].get("ci")) if t in of else Cell("-") for t in tasks]
        small = (plain(record.get("protocol") or "", 200),)
        rows.append(
            [
                Cell(plain(name, 60), small),
                measured(record.get("value"), record.get("ci"), strong=True),
                *cells,
            ]
        )
    return [*parts, Table(["figure", "all", *(t.replace("_", " ") for t in tasks)], rows)]


def _tasks(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    tasks = record.get("tasks")
    return {str(t): v for t, v in tasks.items() if isinstance(v, dict)} if isinstance(tasks, dict) else {}


def _curves(record: Mapping[str, Any]) -> dict[str, list[Point]]:
    """The curves' points inside the unit square, in order."""
    found: dict[str, list[Point]] = {}
    curves = record.get("curves")
    for name, points in list(curves.items())[:4] if isinstance(curves, dict) else ():
        good = [
            Point(at, value, interval_of(p.get("ci")))
            for p in (points if isinstance(points, list) else [])
            if isinstance(p, dict)
            and (at := finite(p.get("at"))) is not None
            and (value := finite(p.get("value"))) is not None
            and 0 <= at <= 1
            and 0 <= value <= 1
        ]
        if good:
            found[plain(name, 60)] = sorted(good, key=lambda p: p.at)[:MAX_POINTS]
    return found


def _diagram(curves: Mapping[str, Sequence[Point]], narrow: bool) -> Figure:
    """A reliability diagram (Murphy and Winkler 1977; DeGroot and Fienberg 1983)."""
    with figure_style():
        figure, (axis,) = panels(1, 1, 3.4, narrow=narrow)
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=1.4, linestyle=(0, (5, 3)))
        for number, (name, points) in enumerate(curves.items()):
            at = [p.at for p in points]
            bounds = [p.ci for p in points if p.ci is not None]
            if len(bounds) == len(points):
                low, high = zip(*bounds, strict=True)
                axis.fill_between(at, low, high, color=color_of(number), alpha=0.15, linewidth=0)
            dashes = [float(length) / 2 for length in DASHES[number % len(DASHES)].split()]
            style = (0, tuple(dashes)) if dashes else "-"
            axis.plot(
                at,
                [p.value for p in points],
                color=color_of(number),
                linewidth=2,
                linestyle=style,
                marker="o",
            )
            for point in points:
                (mark,) = axis.plot(
                    [point.at], [point.value], "o", color=color_of(number), markersize=11, alpha=0
                )
                tip(mark, said(f"{name}, predicted {point.at:.3f}", point.value, point.ci))
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axis.set(xlabel="predicted probability", ylabel="share of right images")
        return figure
