"""The sections of a report on lineage, commands and the settings of the samples."""

from __future__ import annotations

import os
import re
import shlex
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sanactl.errors import SanactlError
from sanactl.files.human import format_ranges
from sanactl.records.journal import Journal
from sanactl.report.lineage import Node, journal_tree, lineage_tree, merge_trees, outline
from sanactl.report.page import absent, escape, table

__all__ = ["Lineages", "command_line", "lineage_section", "read_lineages", "settings_section"]

Record = dict[str, Any]
MAX_LINES = 200
MAX_CHECKPOINTS = 24
MAX_RUNS = 100
MAX_ROWS = 100
# Not settings: what differs by nature from image to image, or is another section's.
_OF_AN_IMAGE = {"kind", "path", "prompt", "prompt_id", "id", "tag", "seed", "index", "checkpoint", "digest"}
_OF_AN_IMAGE |= {"correct", "reason", "rank", "judge_score", "verdict"}
_SECRET = re.compile(r"[-_](key|token|secret|password)$", re.IGNORECASE)


@dataclass
class Lineages:
    """The lineages of the checkpoints of a report, by name; `faults` has the reason where one is unknown."""

    entries: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def read_lineages(checkpoints: Iterable[Record], names: Iterable[str], journal: Journal | None) -> Lineages:
    """The lineages of checkpoints, from their records, else from their headers.

    Args:
        checkpoints: checkpoint records.
        names: of all checkpoints that any records name.
        journal: names more of them.
    """
    found = Lineages()
    for record in checkpoints:
        if record.get("lineage") is not None:
            found.entries[record["path"]] = record["lineage"]
            if record.get("digest") is not None:
                found.digests[record["path"]] = record["digest"]
    wanted = dict.fromkeys(names)
    for run in journal.runs() if journal is not None else ():
        wanted.update((o["path"], None) for o in run["outputs"] if o.get("kind") == "checkpoint")
    unknown = [name for name in wanted if name not in found.entries]
    for name in unknown[-MAX_CHECKPOINTS:]:
        _read_header(name, journal.folder if journal is not None else Path.cwd(), found)
    return found


def _read_header(name: str, folder: Path, found: Lineages) -> None:
    from sanactl.checkpoint.open import open_checkpoint

    try:
        # What is not here may be a Hub's repository: a report downloads nothing.
        if not os.path.exists(folder / name):
            found.faults[name] = "not here"
            return
        checkpoint = open_checkpoint(folder / name)
        found.entries[name], found.digests[name] = checkpoint.lineage, checkpoint.digest
    except SanactlError as error:
        found.faults[name] = error.message
    except (OSError, ValueError):  # a name that is no path: a null character, 300 letters
        found.faults[name] = "no name of a file"


def lineage_section(lineages: Lineages, journal: Journal | None) -> str:
    """What was made from what: by the checkpoints' headers, and by the folder's journal."""
    parts = []
    if lineages.entries:
        trees = [
            root
            for name, entries in lineages.entries.items()
            for root in lineage_tree(entries, name, lineages.digests.get(name))
        ]
        parts.append(_drawing(merge_trees(trees), checkpoint=True))
    elif not lineages.faults:
        parts.append(
            absent("No checkpoints.", "sanactl grow, prune and finetune make them and write down how.")
        )
    if lineages.faults:
        rows = [[escape(name), escape(fault)] for name, fault in lineages.faults.items()]
        parts.append(table(["lineage unknown", "why"], rows))
    roots = journal_tree(journal) if journal is not None else []
    parts = ["<h3>The checkpoints, by their own headers</h3>", *parts, "<h3>The folder, by its journal</h3>"]
    parts.append(
        _drawing(roots, checkpoint=False)
        if roots
        else absent("No journal.", "sanactl's commands write one to the folder that they run in.")
    )
    return "".join(parts)


def _drawing(roots: Sequence[Node], *, checkpoint: bool) -> str:
    lines = []
    drawn = outline(roots)
    for branch, node in drawn[:MAX_LINES]:
        note = ""
        if node.run is not None:
            note = _step(node.run) if checkpoint else command_line(node.run, short=True)
        if node.also_from:
            note += f", also from {', '.join(node.also_from[:4])}"
        marks = [
            m
            for m, on in (("missing", node.exists is False), ("its input was made anew since", node.outdated))
            if on
        ]
        mark = f' <span class="bad">({", ".join(marks)})</span>' if marks else ""
        lines.append(f"{branch}{escape(node.name or '?')}{mark}  <i>{escape(note)}</i>")
    if len(drawn) > MAX_LINES:
        lines.append(f"<i>and {len(drawn) - MAX_LINES:,} more</i>")
    return f"<pre>{chr(10).join(lines)}</pre>"


def _step(entry: Mapping[str, Any]) -> str:
    """A lineage entry in a line: grow to=60 init=partial, seed 0, 60 blocks."""
    arguments = entry.get("arguments")
    said = [str(entry.get("command", "?"))]
    for key, value in arguments.items() if isinstance(arguments, dict) else ():
        if value is not None:
            said.append(f"{key}={_ranges(value) if isinstance(value, list) else value}")
    text = " ".join(said)
    text += f", seed {entry['seed']}" if entry.get("seed") is not None else ""
    return text + (f", {entry['blocks']} blocks" if entry.get("blocks") is not None else "")


def _ranges(values: Sequence[Any]) -> str:
    """Numbers in short: [0, 1, 2, 5] is 0-2,5; any other list as it is."""
    if not values or not all(type(v) is int for v in values):
        return str(list(values))
    return format_ranges(values)


def command_line(run: Mapping[str, Any], *, short: bool = False) -> str:
    """The command of a journal's run as it can be typed again, with the values of secret options hidden.

    Args:
        run: the journal's entry.
        short: leave out the program's name.
    """
    argv = run.get("argv")
    words = [str(word) for word in argv] if isinstance(argv, list) else [str(run.get("command", "?"))]
    if words and Path(words[0]).name in ("sanactl", "__main__.py"):
        words = words[1:]
    typed = [] if short else ["sanactl"]
    for before, word in zip(["", *words], words, strict=False):
        name, equals, _ = word.partition("=")
        if before.startswith("-") and "=" not in before and _SECRET.search(before) and word[:1] != "-":
            typed.append("…")
        elif word.startswith("-") and equals and _SECRET.search(name):
            typed.append(f"{shlex.quote(name)}=…")
        else:
            typed.append(shlex.quote(word))
    return " ".join(typed)


def settings_section(images: Sequence[Record], journal: Journal | None) -> str:
    """How the images were sampled, and the commands that ran in this folder."""
    parts = []
    groups: dict[str, list[Record]] = {}
    for record in images:
        groups.setdefault(str(record.get("checkpoint") or "no checkpoint named"), []).append(record)
    rows = [[escape(name), _constants(group)] for name, group in list(groups.items())[-MAX_ROWS:]]
    if rows:
        parts += ["<h3>Sampling</h3>", table(["checkpoint", "settings of its images"], rows)]
    runs = list(deque(journal.runs(), MAX_RUNS)) if journal is not None else []
    if runs:
        cells = [
            [f"<code>{escape(command_line(run), 600)}</code>"]
            + [escape("-" if run.get(f) is None else run[f]) for f in ("seed", "seconds", "version", "time")]
            for run in runs
        ]
        parts += ["<h3>Commands</h3>", table(["command", "seed", "seconds", "version", "ended"], cells)]
    return "".join(parts) or absent(
        "No runs.", "sanactl's commands write themselves down in the folder's journal."
    )


def _constants(images: Sequence[Record]) -> str:
    """The plain fields that all images of a group have alike, settings in nested objects included."""

    def flat(record: Record) -> dict[str, Any]:
        nested = record.get("settings")
        return {**record, **nested} if isinstance(nested, dict) else record

    alike = dict(flat(images[0]))
    for record in images[1:]:
        fields = flat(record)
        alike = {key: value for key, value in alike.items() if fields.get(key) == value}
    shown = [
        f"{escape(key)} {escape(value)}"
        for key, value in alike.items()
        if key not in _OF_AN_IMAGE and isinstance(value, str | int | float | bool)
    ]
    return " · ".join(shown) or "-"
