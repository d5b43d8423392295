"""What a report knows of a run: its records by kind, its checkpoints with their sizes, lineages and colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sanactl.records.journal import Journal
from sanactl.records.scores import normal_score
from sanactl.report.checkpoints import Lineages, read_lineages
from sanactl.report.images import add_image
from sanactl.report.style import color_of
from sanactl.report.text import finite

__all__ = ["KEY", "MEANS", "STEP", "RunRecords", "newest", "read_run"]

Record = dict[str, Any]
# What a score was measured with and on, for its label, and the rest: scores that differ in one are different scores.
MEANS = ("detector", "model", "selection", "judge", "steps", "top", "round")
KEY = ("metric", "checkpoint", "digest", *MEANS, "detector_digest", "model_digest", "prompts", "difference")
# The steps of a training run are score records, too; they have a section of their own.
STEP = "train_loss"


@dataclass
class RunRecords:
    """A run's records.

    Attributes:
        images: a record for each image, with all that was said of it.
        scores: score records in today's shape, steps of training among them.
        judges: the scores of judges (`eval judge`), which say nothing of a checkpoint.
        lineages: of the checkpoints that the records and the journal name.
        folder: what relative paths are relative to.
        colors: of each checkpoint by name, the same in every plot.
    """

    images: list[Record]
    scores: list[Record]
    blocks: list[Record]
    lineages: Lineages
    journal: Journal | None
    folder: Path
    judges: list[Record] = field(default_factory=list)
    colors: dict[str, str] = field(default_factory=dict)

    def color(self, checkpoint: object) -> str:
        """The colour of a checkpoint."""
        name = str(checkpoint)
        return self.colors.setdefault(name, color_of(len(self.colors)))


def read_run(records: Iterable[Record], journal: Journal | None) -> RunRecords:
    """Reads records one by one, and holds of each only what a page shows."""
    merged: dict[str, Record] = {}
    kinds: dict[str, list[Record]] = {"score": [], "block": [], "checkpoint": []}
    names: dict[str, None] = {}
    for record in records:
        if record["kind"] == "image":
            add_image(merged, record)
        elif record["kind"] in kinds:
            kinds[record["kind"]].append(normal_score(record) if record["kind"] == "score" else record)
        name = record["path"] if record["kind"] == "checkpoint" else record.get("checkpoint")
        if isinstance(name, str):
            names[name] = None
    lineages = read_lineages(kinds["checkpoint"], names, journal)
    folder = journal.folder if journal is not None else Path.cwd()
    judges = [r for r in kinds["score"] if _is_of_a_judge(r)]
    scores = [r for r in kinds["score"] if not _is_of_a_judge(r)]
    run = RunRecords(list(merged.values()), scores, kinds["block"], lineages, journal, folder, judges)
    # Those with scores first: there are more checkpoints in a long run than colours.
    for record in run.scores:
        if record["metric"] != STEP and finite(record.get("value")) is not None:
            run.color(record.get("checkpoint"))
    return run


def _is_of_a_judge(record: Record) -> bool:
    return str(record["metric"]).startswith("judge_") and record.get("judge") is not None


def newest(scores: Sequence[Record]) -> list[Record]:
    """Of scores of the same thing by the same means, the last: scoring again replaces."""
    keys = [repr([record.get(f) for f in KEY]) for record in scores]
    # A score of an earlier version does not name its protocol: the same measurement's replaces it.
    protocols = {key: r["protocol"] for key, r in zip(keys, scores, strict=True) if r.get("protocol")}
    kept: dict[str, Record] = {}
    for key, record in zip(keys, scores, strict=True):
        key += str(record.get("protocol") or protocols.get(key))
        kept.pop(key, None)
        kept[key] = record
    return list(kept.values())
