"""The best choice for a budget: scores against what they cost, as in the paper's figures 3 and 8, and the choice for a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from sanactl.files.human import human_flops
from sanactl.report.blocks import Block, Cell, Heading, Note, Table, measured
from sanactl.report.curves import Point, curves_figure
from sanactl.report.drawn import draw, line_legend
from sanactl.report.labels import selection_words
from sanactl.report.run import RunRecords, newest
from sanactl.report.text import compact, finite, interval_of, number, plain, short_name

__all__ = ["BUDGET", "budget_section"]

Record = dict[str, Any]
BUDGET = "budget"
MAX_LINES = 8
MAX_PANELS = 6
MAX_ROWS = 100
_ABOUT = (
    "Each row is a choice of checkpoint, steps and images: no other choice has a higher score at the same or a lower cost. "
    "The row in bold is the best within the budget. Images drawn, FLOPs and seconds are for one prompt, judging included. "
    "The last column is the score of the best choice on prompts that it was not chosen by."
)
_AXES = {"flops": "FLOPs per prompt", "images": "images per prompt"}


def budget_section(run: RunRecords) -> list[Block]:
    """Every setup's score against its cost, and what `sanactl budget` chose; nothing where there is one setup only."""
    shown = newest(run.scores)
    scaling = [r for r in shown if r["metric"] == "scaling" and isinstance(r.get("curves"), dict)]
    # The last budget replaces those before: its front is one answer.
    choices = [r for r in run.scores if r["metric"] == BUDGET]
    choices = [r for r in choices if (r.get("axis"), r.get("budget")) == _asked(choices[-1])][-MAX_ROWS:]
    blocks: list[Block] = []
    axis = "flops" if any(_points(r, "flops") for r in scaling) else "images"
    setups = {(str(r.get("checkpoint")), r.get("steps")): _points(r, axis) for r in scaling}
    setups = {key: points for key, points in setups.items() if points}
    # Scores against images are among the curves already.
    if len(setups) > 1 and (axis == "flops" or choices):
        blocks += _models(setups, choices, axis) + _steps(setups, axis)
    return blocks + (_choices(run, choices) if choices else [])


def _asked(record: Record) -> tuple[Any, Any]:
    return record.get("axis"), record.get("budget")


def _points(record: Record, axis: str) -> list[Point]:
    """The judge's curve by cost, or the oracle's first point: one image needs no judge."""
    curves = record["curves"]
    curve = curves.get("judge") or (curves.get("oracle") or [])[:1]
    return _sorted(
        [(_cost(p, axis), finite(p.get("value")), p.get("ci")) for p in curve if isinstance(p, dict)]
    )


def _cost(part: Mapping[str, Any], axis: str) -> float | None:
    cost = part.get("cost")
    return finite(cost.get(axis)) if isinstance(cost, dict) else None


def _sorted(found: Sequence[tuple[float | None, float | None, object]]) -> list[Point]:
    points = [
        Point(at, value, interval_of(ci))
        for at, value, ci in found
        if at is not None and value is not None and 0 < at < 1e30
    ]
    return sorted(points, key=lambda p: p.at)


def _models(setups: Mapping[Any, list[Point]], choices: Sequence[Record], axis: str) -> list[Block]:
    """Figure 8: each checkpoint with the most steps that it was sampled with, and the front."""
    most = dict(sorted(setups, key=lambda key: key[1] or 0))
    curves = {
        f"{short_name(name)}{f', {steps} steps' if steps else ''}": setups[name, steps]
        for name, steps in list(most.items())[:MAX_LINES]
    }
    if choices and choices[-1].get("axis") == _AXES[axis]:
        front = _sorted([(_cost(r, axis), finite(r.get("value")), None) for r in choices])
        curves |= {"the best score for each cost": front} if front else {}
    return _plot("Small and large models", {"score by judge": curves}, axis, "budgetmodels")


def _steps(setups: Mapping[Any, list[Point]], axis: str) -> list[Block]:
    """Figure 3: a panel a checkpoint, a line a number of steps."""
    panels: dict[str, dict[str, list[Point]]] = {}
    for (checkpoint, steps), points in sorted(setups.items(), key=lambda item: item[0][1] or 0):
        if steps is not None:
            panels.setdefault(short_name(checkpoint), {})[f"{steps} steps"] = points
    panels = {name: lines for name, lines in panels.items() if 1 < len(lines) <= MAX_LINES}
    panels = dict(list(panels.items())[:MAX_PANELS])
    return _plot("Few and many steps", panels, axis, "budgetsteps") if panels else []


def _plot(title: str, panels: Mapping[str, Mapping[str, list[Point]]], axis: str, name: str) -> list[Block]:
    names = list(dict.fromkeys(line for lines in panels.values() for line in lines))
    figure = partial(_figure, panels, _AXES[axis])
    caption = (
        "Each line begins with one image of a prompt and ends with all its images, of which the judge keeps the best. "
        "The cost is that of sampling, decoding and judging all of them. Bands cover 95 %."
    )
    plot = draw(
        figure, name, f"{title}: score against {_AXES[axis]}", legend=line_legend(names), caption=caption
    )
    return [Heading(title), plot]


def _figure(panels: Mapping[str, Mapping[str, list[Point]]], axis: str, narrow: bool) -> Any:
    return curves_figure(panels, axis, {}, narrow=narrow, amounts=True)


def _choices(run: RunRecords, choices: Sequence[Record]) -> list[Block]:
    rows = [_row(run, record) for record in choices]
    chosen = next((r for r in choices if r.get("chosen")), choices[-1])
    limit = finite(chosen.get("budget"))
    what = plain(chosen.get("axis") or "cost")
    title = "The best choice"
    if limit is not None:
        title += (
            f" within {human_flops(limit)} per prompt"
            if what == _AXES["flops"]
            else f" within {compact(limit)} {what}"
        )
    head = [
        "checkpoint",
        "score",
        "blocks",
        "steps",
        "image kept",
        "images drawn",
        "FLOPs",
        "seconds",
        "on unseen prompts",
    ]
    return [Heading(title), Note(_ABOUT), Table(head, rows)]


def _row(run: RunRecords, record: Record) -> list[Cell]:
    chosen = record.get("chosen") is True
    name = Cell(
        short_name(record.get("checkpoint")),
        ("chosen",) if chosen else (),
        color=run.color(record.get("checkpoint")),
        strong=chosen,
    )
    rule = "one image" if record.get("selection") == "single" else selection_words(record.get("selection"))
    costs = [_cost(record, axis) for axis in ("images", "flops", "seconds")]
    said = (compact, human_flops, compact)
    return [
        name,
        measured(record.get("value"), record.get("ci"), strong=chosen),
        *(Cell(number(record.get(f)), order=finite(record.get(f))) for f in ("blocks", "steps")),
        Cell(plain(rule)),
        *(
            Cell("-" if cost is None else say(cost), order=cost)
            for cost, say in zip(costs, said, strict=True)
        ),
        Cell(number(record.get("held_out")), order=finite(record.get("held_out"))),
    ]
