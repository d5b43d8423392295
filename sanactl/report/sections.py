"""The sections of a report with plots and tables of records, as HTML; one without records says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sanactl.errors import InputError
from sanactl.report.page import (
    absent,
    escape,
    figure,
    finite,
    number,
    short_name,
    table,
    with_interval,
)
from sanactl.report.plots import (
    Point,
    curves_figure,
    importance_figure,
    plain,
    scores_figure,
    to_svg,
    training_figure,
)

__all__ = ["curves_section", "importance_section", "newest", "scores_section", "training_section"]

Record = dict[str, Any]
# The steps of a training run are score records, too; they have a section of their own.
_STEP = "train_loss"
# What a score was measured with and on, for its label, and the rest: scores that differ in one are different scores.
_MEANS = ("detector", "model", "selection", "judge")
_KEY = ("metric", "checkpoint", "digest", *_MEANS, "detector_digest", "model_digest", "prompts")
# The fields that a table has in other columns, or that are of no use to a person.
_UNSHOWN = (
    "kind",
    "metric",
    "checkpoint",
    "digest",
    "value",
    "unit",
    "ci",
    "detector_digest",
    "model_digest",
)
MAX_METRICS = 8
MAX_BARS = 16
MAX_ROWS = 100
MAX_TASKS = 24
MAX_PANELS = 6
MAX_CURVES = 8
MAX_SIZES = 32  # of a scaling curve; 2^31 images are enough


def _interval(value: object) -> tuple[float, float] | None:
    if (
        isinstance(value, list | tuple)
        and len(value) == 2
        and None not in (finite(value[0]), finite(value[1]))
    ):
        return float(value[0]), float(value[1])
    return None


def _distinct(records: Sequence[Record], fields: Sequence[str]) -> list[str]:
    """A label for each record: its checkpoint; on a second line, the fields in which the records differ."""
    differing = [f for f in fields if len({str(r.get(f)) for r in records}) > 1]
    labels: list[str] = []
    times: Counter[str] = Counter()
    for record in records:
        details = ", ".join(str(record[f]) for f in differing if record.get(f) is not None)
        label = "\n".join(filter(None, (short_name(record.get("checkpoint")), details)))
        times[label] += 1
        # The same label twice would put two bars into one place.
        labels.append(label if times[label] == 1 else f"{label} ({times[label]})")
    return labels


def newest(scores: Sequence[Record]) -> list[Record]:
    """Of scores of the same thing by the same means, the last: scoring again replaces."""
    keys = [repr([record.get(f) for f in _KEY]) for record in scores]
    # A score of an earlier version does not name its protocol: the same measurement's replaces it.
    protocols = {key: r["protocol"] for key, r in zip(keys, scores, strict=True) if r.get("protocol")}
    kept: dict[str, Record] = {}
    for key, record in zip(keys, scores, strict=True):
        key += str(record.get("protocol") or protocols.get(key))
        kept.pop(key, None)
        kept[key] = record
    return list(kept.values())


def _by_metric(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of each metric, of the metrics that were measured last."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(str(record["metric"]), []).append(record)
    return dict(list(groups.items())[-MAX_METRICS:])


def scores_section(scores: Sequence[Record]) -> str:
    """Every checkpoint's scores side by side: the metrics that have tasks, then the others."""
    shown = [r for r in newest(scores) if r["metric"] != _STEP and not _curves(r)]
    tasked = [r for r in shown if _tasks(r) and finite(r.get("value")) is not None]
    others = [r for r in shown if not any(r is t for t in tasked)]
    if not shown:
        return absent("No scores.", "sanactl eval writes them.")
    parts = [
        _with_tasks(metric, records, number)
        for number, (metric, records) in enumerate(_by_metric(tasked).items())
    ]
    return "".join(parts) + (_other_scores(others) if others else "")


def _with_tasks(metric: str, records: Sequence[Record], place: int) -> str:
    """One metric: a panel for the whole and one for each task, a bar a checkpoint, and the same as a table."""
    records = records[-MAX_ROWS:]
    labels = _distinct(records, _MEANS)
    tags = list(dict.fromkeys(t for r in records for t in _tasks(r)))[:MAX_TASKS]
    shown, names = records[-MAX_BARS:], labels[-MAX_BARS:]
    panels: dict[str, list[tuple[str, float, tuple[float, float] | None]]] = {
        "overall": [(n, float(r["value"]), _interval(r.get("ci"))) for n, r in zip(names, shown, strict=True)]
    }
    for tag in tags:
        bars = [
            (name, value, _interval(_tasks(r)[tag].get("ci")))
            for name, r in zip(names, shown, strict=True)
            if tag in _tasks(r) and (value := finite(_tasks(r)[tag].get("value"))) is not None
        ]
        if bars:
            panels[tag] = bars
    svg = to_svg(
        scores_figure(panels), f"scores{place}", f"{metric}, overall and by task, of every checkpoint"
    )
    rows = []
    for record in records:
        name = short_name(record.get("checkpoint"))
        tasks = _tasks(record)
        about = " · ".join(escape(record[f]) for f in ("selection", "detector", "model") if record.get(f))
        counts = f"{number(record.get('prompts'))} prompts, {number(record.get('images'))} images"
        rows.append(
            [f"{escape(name)}<small>{about}</small><small>{counts}</small>"]
            + [f"<b>{with_interval(record['value'], record.get('ci'))}</b>"]
            + [with_interval(tasks[t].get("value"), tasks[t].get("ci")) if t in tasks else "-" for t in tags]
        )
    head = [metric, "overall", *(t.replace("_", " ") for t in tags)]
    protocols = dict.fromkeys(str(r["protocol"]) for r in records if r.get("protocol"))
    note = (
        f"{'; '.join(protocols)}{'. ' if protocols else ''}Intervals cover 95 %, as if other prompts of the same kind "
        "had been taken; below five prompts there is none. Scores of different detectors or models do not compare."
    )
    return f"<h3>{escape(metric)}</h3>" + figure(svg, note) + table(head, rows)


def _tasks(record: Record) -> dict[str, dict[str, Any]]:
    tasks = record.get("tasks")
    return {str(t): v for t, v in tasks.items() if isinstance(v, dict)} if isinstance(tasks, dict) else {}


def _other_scores(records: Sequence[Record]) -> str:
    rows = []
    for record in records[-MAX_ROWS:]:
        facts = [
            f"{escape(key)} {number(value)}"
            for key, value in record.items()
            if key not in _UNSHOWN and (finite(value) is not None or isinstance(value, str))
        ]
        unit = f" {escape(record['unit'])}" if isinstance(record.get("unit"), str) else ""
        value = with_interval(record.get("value"), record.get("ci"))
        rows.append(
            [
                escape(record["metric"]),
                escape(short_name(record.get("checkpoint"))),
                f"{value}{unit}",
                " · ".join(facts),
            ]
        )
    return "<h3>Other measurements</h3>" + table(["metric", "checkpoint", "value", "of"], rows)


def curves_section(scores: Sequence[Record]) -> str:
    """The scores that were measured along an axis, such as images per prompt: a panel a checkpoint."""
    records = [r for r in newest(scores) if _curves(r)]
    if not records:
        return absent(
            "No curves.", "sanactl eval geneval adds one where every prompt has several judged images."
        )
    return "".join(
        _with_curves(metric, mine, place) for place, (metric, mine) in enumerate(_by_metric(records).items())
    )


def _with_curves(metric: str, records: Sequence[Record], place: int) -> str:
    shown = records[-4:]
    names = [label.replace("\n", ", ") for label in _distinct(shown, _MEANS)]
    axis = str(shown[-1].get("axis") or "")
    panels = dict(zip(names, map(_curves, shown), strict=True))
    starts = dict(zip(names, (finite(r.get("value")) for r in shown), strict=True))
    svg = to_svg(curves_figure(panels, axis, starts), f"curves{place}", f"{metric} along {axis}")
    columns = list(dict.fromkeys(curve for curves in panels.values() for curve in curves))
    rows = []
    for name, curves in panels.items():
        ends = sorted({point.at for curve in curves.values() for point in (curve[0], curve[-1])})
        for at in (ends[0], ends[-1])[: len(ends)]:
            points = [next((p for p in curves.get(curve, ()) if p.at == at), None) for curve in columns]
            cells = ["-" if point is None else with_interval(point.value, point.ci) for point in points]
            rows.append([escape(name), f"{at:g}", *cells])
    protocols = dict.fromkeys(str(r["protocol"]) for r in shown if r.get("protocol"))
    note = f"{'; '.join(protocols)}{'. ' if protocols else ''}Bands cover 95 %."
    head = ["checkpoint", axis, *columns]
    return f"<h3>{escape(metric)}</h3>" + figure(svg, note) + table(head, rows)


def _curves(record: Record) -> dict[str, list[Point]]:
    """The curves of a record that can be drawn: points with a place above 0 and a value, by place."""
    curves = record.get("curves")
    found: dict[str, list[Point]] = {}
    for name, points in list(curves.items())[:MAX_CURVES] if isinstance(curves, dict) else ():
        good = [
            Point(at, value, _interval(p.get("ci")))
            for p in (points if isinstance(points, list) else [])
            if isinstance(p, dict)
            and (at := finite(p.get("at"))) is not None
            and 0 < at <= 10**9
            and (value := finite(p.get("value"))) is not None
        ]
        if good:
            found[str(name)] = sorted(good, key=lambda p: p.at)[:MAX_SIZES]
    return found


def importance_section(blocks: Sequence[Record], lineages: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Block importance as in figure 5; where a checkpoint here was pruned from the one measured, what it
    kept.

    Args:
        blocks: block records.
        lineages: of the checkpoints of this report, by name.
    """
    if not blocks:
        return absent("No block records.", "sanactl importance writes them.")
    names = list(dict.fromkeys(str(r["checkpoint"]) for r in blocks))[-MAX_PANELS:]
    digests = {str(r.get("digest")): str(r["checkpoint"]) for r in blocks}
    kept: dict[str, Collection[int]] = {}
    for entry in (e for lineage in lineages.values() for e in lineage if e.get("command") == "prune"):
        arguments, parents = entry.get("arguments"), entry.get("parents")
        stays = arguments.get("blocks") if isinstance(arguments, dict) else None
        if isinstance(stays, list) and isinstance(parents, list) and parents and isinstance(parents[0], dict):
            name = digests.get(str(parents[0].get("digest")))
            if name is not None:
                kept[name] = [b for b in stays if type(b) is int]
    try:
        drawn = importance_figure([r for r in blocks if str(r["checkpoint"]) in names], kept)
    except InputError as error:
        return absent(str(error), "")
    svg = to_svg(drawn, "importance", "importance of each block")
    pale = " Pale blocks were cut." if kept else ""
    note = (
        "One minus the cosine similarity of a block's input and output, averaged over prompts and timesteps."
    )
    return figure(svg, note + pale)


def training_section(scores: Sequence[Record]) -> str:
    """Loss curves and what the runs came to."""
    curves: dict[str, dict[int, Record]] = {}
    for record in scores:
        if (
            record["metric"] != _STEP
            or finite(record.get("loss")) is None
            or type(record.get("step")) is not int
        ):
            continue
        name = str(record.get("run") or record.get("checkpoint") or "training")
        curves.setdefault(name, {})[record["step"]] = record  # a step done again after a restart counts once
    if not curves:
        return absent("No training records.", "sanactl finetune writes them.")
    shown = dict(list(curves.items())[-MAX_CURVES:])
    points = {n: [(s, float(steps[s]["loss"])) for s in sorted(steps)] for n, steps in shown.items()}
    svg = to_svg(training_figure(points), "training", "training loss by step")
    rows = []
    for name, steps in shown.items():
        losses = [loss for _, loss in points[name]]
        tail = losses[-max(1, len(losses) // 10) :]
        last = steps[max(steps)]
        rate = finite(last.get("lr"))
        rows.append(
            [
                escape(plain(name)),
                f"{max(steps):,}",
                f"{sum(tail) / len(tail):.4f}",
                "-" if rate is None else f"{rate:.2g}",
                number(last.get("images_per_second"), 1),
            ]
        )
    head = ["run", "steps", "loss, last tenth", "last learning rate", "images per second"]
    return figure(svg, "Pale: each step's loss. Strong: the mean over a twentieth of the run.") + table(
        head, rows
    )
