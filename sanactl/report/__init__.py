"""`report`: the records of a run on one HTML page that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sanactl.files.atomic import atomic_path, check_target
from sanactl.records.journal import Journal
from sanactl.records.scores import normal_score
from sanactl.report.history import lineage_section, read_lineages, settings_section
from sanactl.report.page import Section, escape, finite, number, page
from sanactl.report.plots import plot_importance
from sanactl.report.samples import add_image, samples_section
from sanactl.report.sections import (
    curves_section,
    importance_section,
    newest,
    scores_section,
    training_section,
)

__all__ = ["build_report", "plot_importance"]

Record = dict[str, Any]
MAX_FACTS = 4


def build_report(
    records: Iterable[Record],
    journal: Journal | None,
    target: Path,
    *,
    title: str = "A run of sanactl",
    force: bool = False,
) -> Path:
    """Writes one HTML page about a run: scores, scaling, block importance, training, samples, lineage,
    settings.

    The page holds its images and plots, needs no script and no network, and stays under 5 MB. A section without records
    says so and names the command that makes them. A missing image or checkpoint is named.

    Args:
        records: of any kinds, in order; of several about one image or one score the later count. They are read one by
            one, and of each only what the page shows is held.
        journal: the folder's, for its lineage and commands; paths in the records are relative to its folder.
        target: the .html file.

    Raises:
        OutputExistsError: `target` is there and `force` is not set.
    """
    check_target(target, force)
    folder = journal.folder if journal is not None else Path.cwd()
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
    images, scores, blocks = list(merged.values()), kinds["score"], kinds["block"]
    lineages = read_lineages(kinds["checkpoint"], names, journal)
    sections = [
        Section("scores", "Scores", scores_section(scores)),
        Section("curves", "Curves", curves_section(scores)),
        Section("blocks", "Block importance", importance_section(blocks, lineages.entries)),
        Section("training-loss", "Training", training_section(scores)),
        Section("samples", "Samples", samples_section(images, folder)),
        Section("lineage", "Lineage", lineage_section(lineages, journal)),
        Section("settings", "Settings", settings_section(images, journal)),
    ]
    text = page(title, _facts(len(lineages.entries) + len(lineages.faults), images, scores), sections)
    with atomic_path(target, force=force) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def _facts(checkpoints: int, images: Sequence[Record], scores: Sequence[Record]) -> str:
    """The headline: how much there is, and the best score."""
    facts = [("checkpoints", number(checkpoints))] if checkpoints else []
    if images:
        facts.append(("images", number(len(images))))
    best: dict[str, float] = {}
    for record in newest(scores):
        value = finite(record.get("value"))
        # Only metrics with tasks: of any other it is not known whether larger is better.
        if value is not None and isinstance(record.get("tasks"), dict) and record["tasks"]:
            best[record["metric"]] = max(value, best.get(record["metric"], value))
    facts += [(f"best {metric}", number(value)) for metric, value in list(best.items())[-MAX_FACTS:]]
    items = "".join(f"<li><b>{value}</b>{escape(what, 40)}</li>" for what, value in facts)
    return f'<ul class="facts">{items}</ul>' if items else ""
