"""The sections of a report that draw and tabulate records; each is HTML, and says so where it has nothing."""

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
    importance_figure,
    plain,
    scaling_figure,
    scores_figure,
    to_svg,
    training_figure,
)
from sanactl.scoring.geneval.rules import TASKS

__all__ = ["importance_section", "newest", "scaling_section", "scores_section", "training_section"]

Record = dict[str, Any]
# The fields of a score that its `ci` belongs to.
_MAIN = ("overall", "score", "value")
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
    kept: dict[str, Record] = {}
    for record in scores:
        key = repr(
            [
                record.get(f)
                for f in ("metric", "checkpoint", "digest", "detector", "selection", "judge", "prompts")
            ]
        )
        kept.pop(key, None)
        kept[key] = record
    return list(kept.values())


def scores_section(scores: Sequence[Record]) -> str:
    """Every checkpoint's scores side by side: GenEval with its tasks, then whatever else was measured."""
    geneval = [r for r in newest(scores) if r["metric"] == "geneval" and finite(r.get("overall")) is not None]
    others = [r for r in newest(scores) if r["metric"] not in ("geneval", "train_loss", "scaling")]
    if not geneval and not others:
        return absent("No scores.", "sanactl eval writes them.")
    return (_geneval(geneval) if geneval else "") + (_other_scores(others) if others else "")


def _geneval(records: Sequence[Record]) -> str:
    records = records[-MAX_ROWS:]
    labels = _distinct(records, ("selection", "detector"))
    present = dict.fromkeys(t for r in records for t in _tasks(r))
    tags = [t for t in TASKS if t in present] + [t for t in present if t not in TASKS]
    tags = tags[:MAX_TASKS]
    shown, names = records[-MAX_BARS:], labels[-MAX_BARS:]
    panels: dict[str, list[tuple[str, float, tuple[float, float] | None]]] = {
        "overall": [
            (n, float(r["overall"]), _interval(r.get("ci"))) for n, r in zip(names, shown, strict=True)
        ]
    }
    for tag in tags:
        bars = [
            (name, value, _interval(_tasks(r)[tag].get("ci")))
            for name, r in zip(names, shown, strict=True)
            if tag in _tasks(r) and (value := finite(_tasks(r)[tag].get("score"))) is not None
        ]
        if bars:
            panels[tag] = bars
    svg = to_svg(scores_figure(panels), "scores", "GenEval scores, overall and by task, of every checkpoint")
    rows = []
    for record in records:
        name = short_name(record.get("checkpoint"))
        tasks = _tasks(record)
        about = " · ".join(escape(record[f]) for f in ("selection", "detector") if record.get(f))
        counts = f"{number(record.get('prompts'))} prompts, {number(record.get('images'))} images"
        rows.append(
            [f"{escape(name)}<small>{about}</small><small>{counts}</small>"]
            + [f"<b>{with_interval(record['overall'], record.get('ci'))}</b>"]
            + [with_interval(tasks[t].get("score"), tasks[t].get("ci")) if t in tasks else "-" for t in tags]
        )
    head = ["GenEval", "overall", *(t.replace("_", " ") for t in tags)]
    note = (
        "Share of correct images; overall is the mean of the tasks. Intervals cover 95 %, from drawing each "
        "task's prompts anew with their images kept together. Scores of different detectors do not compare."
    )
    return figure(svg, note) + table(head, rows)


def _tasks(record: Record) -> dict[str, dict[str, Any]]:
    tasks = record.get("tasks")
    return {str(t): v for t, v in tasks.items() if isinstance(v, dict)} if isinstance(tasks, dict) else {}


def _other_scores(records: Sequence[Record]) -> str:
    known = ("kind", "metric", "checkpoint", "digest", "ci")
    rows = []
    for record in records[-MAX_ROWS:]:
        values = [
            f"{escape(key)} {with_interval(value, record.get('ci') if key in _MAIN else None)}"
            for key, value in record.items()
            if key not in known and (finite(value) is not None or isinstance(value, str))
        ]
        rows.append(
            [escape(record["metric"]), escape(short_name(record.get("checkpoint"))), " · ".join(values)]
        )
    return "<h3>Other measurements</h3>" + table(["metric", "checkpoint", "values"], rows)


def scaling_section(scores: Sequence[Record]) -> str:
    """Score against the number of images a prompt."""
    records = [r for r in newest(scores) if r["metric"] == "scaling" and _points(r)]
    if not records:
        return absent(
            "No scaling curve.", "sanactl eval geneval adds one where every prompt has several judged images."
        )
    shown = records[-4:]
    names = [label.replace("\n", ", ") for label in _distinct(shown, ("judge", "detector"))]
    curves = dict(zip(names, (_points(r) for r in shown), strict=True))
    svg = to_svg(
        scaling_figure(curves), "scaling", "score of the best of n images against n, by judge and by oracle"
    )
    note = (
        "The judge's line is the score of the image that the judge prefers among n; the oracle's, a bound "
        "for all judges, is the chance that any of the n is correct. Both are exact expectations over all "
        "choices of n of the images sampled; bands cover 95 %."
    )
    rows = [
        [
            escape(name),
            number(p["n"]),
            with_interval(p.get("judge"), p.get("judge_ci")),
            with_interval(p["oracle"], p.get("oracle_ci")),
        ]
        for name, points in curves.items()
        for p in (points[0], points[-1])[: len(points)]
    ]
    return figure(svg, note) + table(["checkpoint", "images per prompt", "judge", "oracle"], rows)


def _points(record: Record) -> list[Record]:
    """The points that can be drawn, all of them with or all without a judge's value."""
    points = record.get("points")
    good = [
        p
        for p in (points if isinstance(points, list) else [])
        if isinstance(p, dict)
        and type(p.get("n")) is int
        and 1 <= p["n"] <= 10**9
        and finite(p.get("oracle")) is not None
        and _interval(p.get("oracle_ci"))
    ]
    good = good[:MAX_SIZES]
    judged = all(finite(p.get("judge")) is not None and _interval(p.get("judge_ci")) for p in good)
    return good if judged else [{**p, "judge": None} for p in good]


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
            record["metric"] != "train_loss"
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
