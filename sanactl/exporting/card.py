"""The dataset card: README.md with metadata for the Hub, the columns, and how the images were made."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sanactl.exporting.columns import Column
from sanactl.exporting.formats.base import ExportFormat
from sanactl.exporting.history import commands_before, without_folders
from sanactl.exporting.plan import ExportPlan
from sanactl.files.atomic import atomic_path
from sanactl.files.human import human_bytes
from sanactl.records.journal import Journal
from sanactl.report.checkpoints import read_lineages
from sanactl.report.history import step_line
from sanactl.report.render import render, yaml_text
from sanactl.report.text import counted, number, plain
from sanactl.version import __version__

__all__ = ["write_card"]

_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
)
_MOST = 24  # checkpoints and tasks that are listed
_LARGE = 10 * 10**9  # bytes, from which on an upload should be able to go on after a stop


def write_card(
    path: Path,
    plan: ExportPlan,
    to: ExportFormat,
    *,
    source: str | None = None,
    journal: Journal | None = None,
) -> None:
    """Writes the card of an export; one that is there is replaced.

    Args:
        source: the records' file or folder, None for a pipe.
        journal: of the folder in which the command runs; tells which commands made the records.

    Raises:
        SanactlError: it cannot be written.
    """
    folder = plain(path.parent.absolute().name, 100)
    commands = commands_before(source, plan.first, journal) if journal is not None else []
    columns = plan.columns.by_name
    seeds = columns.get("seed")
    text = render(
        "dataset.md.j2",
        front=yaml_text(_metadata(plan, to)),
        name=folder,
        about=to.about,
        amount=f"{counted(plan.images, 'image')} ({human_bytes(plan.nbytes)}) in {counted(len(plan.shards), 'shard')}",
        loading=to.loading(folder),
        trains=not to.needs_label,
        quoted=shlex.quote(folder),
        caption=plan.settings.texts[0],
        columns=_columns(plan),
        tasks=plan.tasks.most_common(_MOST),
        checkpoints=_checkpoints(plan.checkpoints.most_common(_MOST)),
        seeds=None if seeds is None or seeds.low is None else (seeds.low, seeds.high),
        commands=commands,
        skipped=plan.skipped,
        version=__version__,
        upload="upload-large-folder" if plan.nbytes > _LARGE else "upload",
    )
    with atomic_path(path, force=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _metadata(plan: ExportPlan, to: ExportFormat) -> dict[str, Any]:
    """The card's metadata as the Hub and `datasets` read it. The license is the user's to add."""
    size = next((name for most, name in _SIZES if plan.images < most), "100M<n<1B")
    files = [{"split": "train", "path": to.data_files()}]
    features = to.features(plan)
    return {
        "task_categories": list(to.tasks),
        "size_categories": [size],
        "tags": ["sana", "sanactl", *(["synthetic"] if plan.checkpoints else [])],
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {"features": features} if features else None,
    }


def _columns(plan: ExportPlan) -> list[tuple[str, str, str, str]]:
    """(name, type, rows with a value, what the values are) of each column but the captions."""
    rows = []
    for name, column in plan.columns.by_name.items():
        kind = "text of JSON" if column.type == "json" else column.type
        rows.append((plain(name, 60), kind, f"{column.filled:,}", _values(column)))
    return rows


def _values(column: Column) -> str:
    if column.only is not None:
        return f"always {plain(column.only, 80)}"
    if column.low is None or column.type == "json":
        return ""
    return f"{number(column.low)} to {number(column.high)}"


def _checkpoints(counts: Iterable[tuple[tuple[str, str], int]]) -> list[tuple[str, str, int, list[str]]]:
    """(name, digest, images, steps of its lineage) of each checkpoint that the records name.

    The lineage is that of a file of this name and digest, if it is here.
    """
    found = list(counts)
    known = read_lineages([], dict.fromkeys(name for (name, _), _ in found), None)
    rows = []
    for (name, digest), images in found:
        same = digest and known.digests.get(name) == digest
        lineage: Iterable[Mapping[str, Any]] = known.entries.get(name, []) if same else []
        rows.append((without_folders(name), digest, images, [_step(entry) for entry in lineage]))
    return rows


def _step(entry: Mapping[str, Any]) -> str:
    return without_folders(plain(step_line(entry), 400))
