"""The sections of a report on block importance and on training."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sanactl.errors import InputError
from sanactl.report.blocks import Absent, Block, Cell, Table, cell
from sanactl.report.curves import training_figure
from sanactl.report.drawn import draw, line_legend
from sanactl.report.plots import importance_figure
from sanactl.report.run import STEP, RunRecords
from sanactl.report.text import finite, number, plain

__all__ = ["importance_section", "training_section"]

Record = dict[str, Any]
MAX_PANELS = 6
MAX_CURVES = 8


def importance_section(run: RunRecords) -> list[Block]:
    """Block importance as in figure 5; where a checkpoint here was pruned from the one measured, what it kept."""
    if not run.blocks:
        return [Absent("No block records.", "sanactl importance writes them.")]
    names = list(dict.fromkeys(str(r["checkpoint"]) for r in run.blocks))[-MAX_PANELS:]
    kept = _kept(run.blocks, run.lineages.entries)
    shown = [r for r in run.blocks if str(r["checkpoint"]) in names]
    pale = " The last pruning removed the pale blocks." if kept else ""
    note = (
        "One minus the cosine similarity of a block's input and output, averaged over prompts and timesteps "
        "(equation 3)." + pale
    )
    try:
        return [
            draw(
                lambda narrow: importance_figure(shown, kept, narrow=narrow),
                "importance",
                "importance of each block",
                caption=note,
            )
        ]
    except InputError as error:
        return [Absent(str(error))]


def _kept(
    blocks: Sequence[Record], lineages: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Collection[int]]:
    """The blocks that the last pruning of each measured checkpoint kept."""
    digests = {str(r.get("digest")): str(r["checkpoint"]) for r in blocks}
    kept: dict[str, Collection[int]] = {}
    for entry in (e for lineage in lineages.values() for e in lineage if e.get("command") == "prune"):
        arguments, parents = entry.get("arguments"), entry.get("parents")
        stays = arguments.get("blocks") if isinstance(arguments, dict) else None
        if isinstance(stays, list) and isinstance(parents, list) and parents and isinstance(parents[0], dict):
            name = digests.get(str(parents[0].get("digest")))
            if name is not None:
                kept[name] = [b for b in stays if type(b) is int]
    return kept


def training_section(run: RunRecords) -> list[Block]:
    """Loss curves and what the runs came to."""
    curves: dict[str, dict[int, Record]] = {}
    for record in run.scores:
        if (
            record["metric"] != STEP
            or finite(record.get("loss")) is None
            or type(record.get("step")) is not int
        ):
            continue
        name = str(record.get("run") or record.get("checkpoint") or "training")
        curves.setdefault(name, {})[record["step"]] = record  # a step done again after a restart counts once
    if not curves:
        return [Absent("No training records.", "sanactl finetune writes them.")]
    shown = dict(list(curves.items())[-MAX_CURVES:])
    points = {n: [(s, float(steps[s]["loss"])) for s in sorted(steps)] for n, steps in shown.items()}
    drawn = {name: curve for name, curve in points.items() if len(curve) > 1}  # one point is no curve
    parts: list[Block] = []
    if drawn:
        plot = draw(
            lambda narrow: training_figure(drawn, narrow=narrow),
            "training",
            "training loss by step",
            legend=line_legend([plain(name) for name in drawn]),
            caption="The pale line is the loss of each step. The strong line is its mean over a twentieth of the run.",
        )
        parts.append(plot)
    rows = []
    for name, steps in shown.items():
        losses = [loss for _, loss in points[name]]
        tail = losses[-max(1, len(losses) // 10) :]
        last = steps[max(steps)]
        rate, speed = finite(last.get("lr")), finite(last.get("images_per_second"))
        mean = sum(tail) / len(tail)
        rows.append(
            [
                Cell(plain(name)),
                cell(max(steps)),
                Cell(f"{mean:.4f}", order=mean),
                Cell("-" if rate is None else f"{rate:.2g}", order=rate),
                Cell("-" if speed is None else number(speed, 1), order=speed),
            ]
        )
    head = ["run", "steps", "loss, last tenth", "last learning rate", "images per second"]
    return [*parts, Table(head, rows)]
