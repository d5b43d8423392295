"""`report`: the records of a run on one HTML page that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.files.atomic import atomic_path, check_target

if TYPE_CHECKING:
    from sanactl.records.journal import Journal
    from sanactl.report.run import RunRecords

__all__ = ["build_report"]

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
    """Writes one HTML page about a run: the question and its answer, images by checkpoint, scores against size and
    speed, scores by task, scaling, block importance, training, samples, lineage, settings.

    The page holds its images, plots and script, needs no network, and stays under 5 MB. A section without records
    says so and names the command that makes them. A missing image or checkpoint is named.

    Args:
        records: of any kinds, in order; of several about one image or one score the later count. They are read one by
            one, and of each only what the page shows is held.
        journal: the folder's, for its lineage and commands; paths in the records are relative to its folder.
        target: the .html file.

    Raises:
        OutputExistsError: `target` is there and `force` is not set.
    """
    from sanactl.report.blocks import Section
    from sanactl.report.budget import budget_section
    from sanactl.report.headline import find_headline, main_scores
    from sanactl.report.history import lineage_section, settings_section
    from sanactl.report.judges import judges_section
    from sanactl.report.labels import is_selected
    from sanactl.report.overview import overview
    from sanactl.report.pictures import Thumbnails
    from sanactl.report.render import render
    from sanactl.report.run import read_run
    from sanactl.report.samples import samples_section, strip
    from sanactl.report.sections import curves_section, scores_section
    from sanactl.report.training import importance_section, training_section

    check_target(target, force)
    run = read_run(records, journal)
    headline, scores = find_headline(run), main_scores(run)
    thumbnails = Thumbnails(run.folder)
    first = strip(run, headline.chain, thumbnails)
    sections = [
        Section("cost", "Score and cost", overview(run, scores)),
        Section("scores", "Scores", scores_section(run)),
        Section("curves", "Curves", curves_section(run)),
        *([Section("judges", "Judges", judges_section(run))] if run.judges else []),
        Section("budget", "Best choice for a budget", budget_section(run)),
        Section("blocks", "Block importance", importance_section(run)),
        Section("training-loss", "Training", training_section(run)),
        Section("samples", "Samples", samples_section(run, headline.chain, thumbnails)),
        Section(
            "lineage",
            "Lineage",
            # A box has no room to say of a score that a judge selected its images.
            lineage_section(run, {n: f"{r['value']:.2f}" for n, r in scores.items() if not is_selected(r)}),
        ),
        Section("settings", "Settings", settings_section(run)),
    ]
    text = render(
        "report.html.j2",
        title=title,
        headline=headline,
        strip=first,
        facts=_facts(run),
        sections=[section for section in sections if section.blocks],
    )
    with atomic_path(target, force=force) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def _facts(run: RunRecords) -> list[tuple[str, str]]:
    """How much there is, and the best scores: (number, what it counts)."""
    from sanactl.report.labels import is_selected, said_of_selection
    from sanactl.report.run import newest
    from sanactl.report.text import finite, number, plain, plural

    checkpoints = len(run.lineages.entries) + len(run.lineages.faults)
    counts = ((checkpoints, "checkpoint"), (len(run.images), "image"))
    facts = [(number(count), plural(count, what)) for count, what in counts if count]
    best: dict[str, tuple[bool, float, str]] = {}
    for record in newest(run.scores):
        value = finite(record.get("value"))
        # Only metrics with tasks: of any other it is not known whether larger is better.
        if value is not None and isinstance(record.get("tasks"), dict) and record["tasks"]:
            # A score of all images before one of those that a judge selected.
            found = (not is_selected(record), value, said_of_selection(record))
            best[record["metric"]] = max(found, best.get(record["metric"], found))
    return facts + [
        (number(value), ", ".join(filter(None, (f"best {plain(metric, 40)}", selected))))
        for metric, (_, value, selected) in list(best.items())[-MAX_FACTS:]
    ]
