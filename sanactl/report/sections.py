"""The sections of a report with plots and tables of scores; one without records says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from sanactl.report.blocks import Absent, Block, Cell, Heading, Note, Table, measured
from sanactl.report.budget import BUDGET
from sanactl.report.curves import Point, curves_figure
from sanactl.report.drawn import draw, line_legend
from sanactl.report.labels import detector_words, metric_name, prompts_words, score_labels, selection_words
from sanactl.report.plots import Bar, scores_figure
from sanactl.report.run import STEP, RunRecords, newest
from sanactl.report.style import DASHES, GREY
from sanactl.report.text import finite, interval_of, number, plain, short_name
from sanactl.scoring.table_one import HEADINGS, TABLE_METRICS, table_one

__all__ = ["curves_section", "scores_section", "tasks_of"]

Record = dict[str, Any]
# The fields that a table has in other columns, or that are of no use to a person.
_UNSHOWN = (
    "kind", "metric", "checkpoint", "digest", "value", "unit", "ci", "detector_digest", "model_digest",
)  # fmt: skip
MAX_METRICS = 8
MAX_BARS = 16
MAX_ROWS = 100
MAX_TASKS = 24
MAX_CURVES = 8
MAX_SIZES = 32  # of a scaling curve; 2^31 images are enough


def _by_metric(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of each metric, of the metrics that were measured last."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(str(record["metric"]), []).append(record)
    return dict(list(groups.items())[-MAX_METRICS:])


def scores_section(run: RunRecords) -> list[Block]:
    """Every checkpoint's scores side by side: the metrics that have tasks, then the others."""
    shown = [r for r in newest(run.scores) if r["metric"] not in (STEP, BUDGET) and not _curves(r)]
    tasked = [r for r in shown if tasks_of(r) and finite(r.get("value")) is not None]
    others = [r for r in shown if not tasks_of(r) or finite(r.get("value")) is None]
    if not shown:
        return [Absent("No scores.", "sanactl eval writes them.")]
    parts: list[Block] = _as_table_one(shown)
    for place, (metric, records) in enumerate(_by_metric(tasked).items()):
        parts += _with_tasks(run, metric, records[-MAX_ROWS:], place)
    return parts + (_other_scores(run, others[-MAX_ROWS:]) if others else [])


def _as_table_one(records: Sequence[Record]) -> list[Block]:
    """All that the paper's table 1 has, where two of its columns or more were measured."""
    table = table_one([r for r in records if finite(r.get("value")) is not None])
    filled = [place for place, _ in enumerate(HEADINGS) if any(row[place] for row in table.rows)]
    if len({record["metric"] for record in records} & TABLE_METRICS) < 2:
        return []
    rows = [[Cell(plain(row[place], 80) or "-") for place in filled] for row in table.rows[-MAX_ROWS:]]
    notes = [Note(plain(note, 400)) for note in table.notes[:MAX_ROWS]]
    return [Heading("As the paper's table 1"), Table([HEADINGS[place] for place in filled], rows), *notes]


def _with_tasks(run: RunRecords, metric: str, records: Sequence[Record], place: int) -> list[Block]:
    """One metric: a panel for the whole and one for each task, a bar a checkpoint, and the same as a table."""
    labels = score_labels(records)
    tags = list(dict.fromkeys(t for r in records for t in tasks_of(r)))[:MAX_TASKS]
    shown = list(zip(labels[-MAX_BARS:], records[-MAX_BARS:], strict=True))
    panels = {"overall": [_bar(run, label, r, r) for label, r in shown]}
    for tag in tags:
        bars = [
            _bar(run, label, r, tasks_of(r)[tag])
            for label, r in shown
            if tag in tasks_of(r) and finite(tasks_of(r)[tag].get("value")) is not None
        ]
        if bars:
            panels[tag] = bars
    protocols = dict.fromkeys(str(r["protocol"]) for r in records if r.get("protocol"))
    note = (
        f"{'; '.join(protocols)}{'. ' if protocols else ''}Intervals cover 95 %, as if other prompts of the same kind "
        "had been taken; below five prompts there is none. Scores of different detectors or models do not compare."
    )
    plot = draw(
        lambda narrow: scores_figure(panels, narrow=narrow),
        f"scores{place}",
        f"{metric}, overall and by task, of every checkpoint",
        caption=note,
    )
    rows = [_row(run, label, record, tags) for label, record in zip(labels, records, strict=True)]
    head = [metric, "overall", *(t.replace("_", " ") for t in tags)]
    return [Heading(metric), plot, Table(head, rows)]


def _bar(run: RunRecords, label: str, record: Record, part: Mapping[str, Any]) -> Bar:
    color = run.color(record.get("checkpoint"))
    return Bar(label, float(part["value"]), interval_of(part.get("ci")), color)


def _row(run: RunRecords, label: str, record: Record, tags: Sequence[str]) -> list[Cell]:
    name, *second = label.split("\n")
    about = [selection_words(record["selection"])] if record.get("selection") else []
    about += [detector_words(record), *(str(record[f]) for f in ("model", "judge") if record.get(f))]
    counts = [prompts_words(record)]
    counts += [f"{number(record['images'])} images"] if record.get("images") is not None else []
    about = [a for a in about if a and a not in "".join(second)]
    small = [*second, " · ".join(about), ", ".join(c for c in counts if c and c not in "".join(second))]
    color = run.color(record.get("checkpoint"))
    cells = [Cell(name, tuple(filter(None, small)), color=color)]
    cells.append(measured(record["value"], record.get("ci"), strong=True))
    tasks = tasks_of(record)
    return cells + [
        measured(tasks[t].get("value"), tasks[t].get("ci")) if t in tasks else Cell("-") for t in tags
    ]


def tasks_of(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A score's parts by name."""
    tasks = record.get("tasks")
    return {str(t): v for t, v in tasks.items() if isinstance(v, dict)} if isinstance(tasks, dict) else {}


def _other_scores(run: RunRecords, records: Sequence[Record]) -> list[Block]:
    rows = []
    for record in records:
        facts = [
            f"{key.replace('_', ' ')} {number(value)}"
            for key, value in record.items()
            if key not in _UNSHOWN and (finite(value) is not None or isinstance(value, str))
        ]
        about = Cell(plain(" · ".join(facts), 400), wide=True)
        who = Cell(short_name(record.get("checkpoint")))
        what = measured(record.get("value"), record.get("ci"), record.get("unit"))
        rows.append([Cell(metric_name(record)), who, what, about])
    return [Heading("Other measurements"), Table(["metric", "checkpoint", "value", "of"], rows)]


def curves_section(run: RunRecords) -> list[Block]:
    """The scores that were measured along an axis, such as images per prompt: a panel a checkpoint."""
    records = [r for r in newest(run.scores) if _curves(r)]
    if not records:
        return [
            Absent(
                "No curves.", "sanactl eval geneval adds one where every prompt has several judged images."
            )
        ]
    parts: list[Block] = []
    for place, (metric, mine) in enumerate(_by_metric(records).items()):
        parts += _with_curves(metric, mine[-4:], place)
    return parts


def _with_curves(metric: str, shown: Sequence[Record], place: int) -> list[Block]:
    names = [label.replace("\n", ", ") for label in score_labels(shown)]
    axis = str(shown[-1].get("axis") or "")
    panels = dict(zip(names, map(_curves, shown), strict=True))
    starts = dict(zip(names, (finite(r.get("value")) for r in shown), strict=True))
    columns = list(dict.fromkeys(curve for curves in panels.values() for curve in curves))
    rows = []
    for name, curves in panels.items():
        ends = sorted({point.at for curve in curves.values() for point in (curve[0], curve[-1])})
        for at in (ends[0], ends[-1])[: len(ends)]:
            points = [next((p for p in curves.get(curve, ()) if p.at == at), None) for curve in columns]
            cells = [Cell("-") if point is None else measured(point.value, point.ci) for point in points]
            rows.append([Cell(name), Cell(f"{at:g}", order=at), *cells])
    protocols = dict.fromkeys(str(r["protocol"]) for r in shown if r.get("protocol"))
    note = f"{'; '.join(protocols)}{'. ' if protocols else ''}Bands cover 95 %."
    legend = line_legend(columns)
    if any(start is not None for start in starts.values()):
        legend.append((GREY, DASHES[1], f"where the curves begin: {axis} 1"))
    figure = partial(_curves_figure, panels, axis, starts)
    plot = draw(figure, f"curves{place}", f"{metric} along {axis}", legend=legend, caption=note)
    return [Heading(metric), plot, Table(["checkpoint", axis, *columns], rows)]


def _curves_figure(
    panels: Mapping[str, Mapping[str, Sequence[Point]]],
    axis: str,
    starts: Mapping[str, float | None],
    narrow: bool,
) -> Any:
    return curves_figure(panels, axis, starts, narrow=narrow)


def _curves(record: Record) -> dict[str, list[Point]]:
    """The curves of a record that can be drawn: points with a place above 0 and a value, by place."""
    curves = record.get("curves")
    found: dict[str, list[Point]] = {}
    for name, points in list(curves.items())[:MAX_CURVES] if isinstance(curves, dict) else ():
        good = [
            Point(at, value, interval_of(p.get("ci")))
            for p in (points if isinstance(points, list) else [])
            if isinstance(p, dict)
            and (at := finite(p.get("at"))) is not None
            and 0 < at <= 10**9
            and (value := finite(p.get("value"))) is not None
        ]
        if good:
            found[str(name)] = sorted(good, key=lambda p: p.at)[:MAX_SIZES]
    return found
