"""The sections of a report on lineage, commands and the settings of the samples."""

from __future__ import annotations

import re
import shlex
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sanactl.files.human import format_ranges
from sanactl.report.blocks import Absent, Block, Cell, Heading, Table, cell
from sanactl.report.checkpoints import Facts
from sanactl.report.graph import Outline, lineage_graph
from sanactl.report.lineage import Node, journal_tree, lineage_tree, merge_trees, outline
from sanactl.report.run import RunRecords
from sanactl.report.style import GREY
from sanactl.report.text import finite, plain, short_name

__all__ = ["command_line", "lineage_section", "settings_section", "step_line"]

Record = dict[str, Any]
MAX_LINES = 200
MAX_RUNS = 100
MAX_ROWS = 100
# Not settings: what differs by nature from image to image, or is another section's.
_OF_AN_IMAGE = {"kind", "path", "prompt", "prompt_id", "id", "tag", "seed", "index", "checkpoint", "digest"}
_OF_AN_IMAGE |= {"correct", "reason", "rank", "judge_score", "verdict"}
_SECRET = re.compile(r"[-_](key|token|secret|password)$", re.IGNORECASE)


def lineage_section(run: RunRecords, scores: Mapping[str, str]) -> list[Block]:
    """What was made from what: by the checkpoints' headers as a graph, and by the folder's journal as a tree.

    Args:
        scores: what to write beside a checkpoint, by name.
    """
    lineages, journal = run.lineages, run.journal
    parts: list[Block] = [Heading("The checkpoints, by their own headers")]
    if lineages.entries:
        trees = [
            root
            for name, entries in lineages.entries.items()
            for root in lineage_tree(entries, name, lineages.digests.get(name))
        ]
        roots = merge_trees(trees)
        known = {}
        for name in lineages.entries:
            size = _size(lineages.facts[name]) if name in lineages.facts else ""
            said = " · ".join(filter(None, (size, scores.get(name))))
            # By digest: a header may call another checkpoint by the name of one that is here.
            known[lineages.digests.get(name, name)] = (said, run.colors.get(name, GREY))
        graph = lineage_graph(roots, known)
        parts += [graph] if graph else []
        parts.append(_drawing("Each step with its settings", roots, checkpoint=True))
    elif not lineages.faults:
        parts.append(
            Absent("No checkpoints.", "sanactl grow, prune and finetune make them and write down how.")
        )
    if lineages.faults:
        rows = [[Cell(name), Cell(fault)] for name, fault in lineages.faults.items()]
        parts.append(Table(["lineage unknown", "why"], rows))
    parts.append(Heading("The folder, by its journal"))
    roots = journal_tree(journal) if journal is not None else []
    if roots:
        parts.append(_drawing("Every file and the command that made it", roots, checkpoint=False))
    else:
        parts.append(Absent("No journal.", "sanactl's commands write one to the folder that they run in."))
    return parts


def _size(facts: Facts) -> str:
    from sanactl.report.text import compact

    said = [f"{facts.blocks} blocks"] if facts.blocks else []
    return " · ".join(said + ([compact(facts.parameters)] if facts.parameters else []))


def _drawing(title: str, roots: Sequence[Node], *, checkpoint: bool) -> Outline:
    lines = []
    drawn = outline(roots)
    for branch, node in drawn[:MAX_LINES]:
        note = ""
        if node.run is not None:
            note = step_line(node.run) if checkpoint else command_line(node.run, short=True)
        if node.also_from:
            note += f", also from {', '.join(node.also_from[:4])}"
        marks = [
            m
            for m, on in (("missing", node.exists is False), ("its input was made anew since", node.outdated))
            if on
        ]
        lines.append((branch, plain(node.name or "?", 400), ", ".join(marks), plain(note, 400)))
    return Outline(title, lines, len(drawn) - len(lines))


def step_line(entry: Mapping[str, Any]) -> str:
    """A lineage entry in a line: grow to=60 init=partial, seed 0, 60 blocks."""
    arguments = entry.get("arguments")
    said = [str(entry.get("command", "?"))]
    for key, value in arguments.items() if isinstance(arguments, dict) else ():
        if value is None or key == "seed" or (not value and entry.get("command") == "finetune"):
            continue  # most of finetune's options are off most of the time
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


def settings_section(run: RunRecords) -> list[Block]:
    """How the images were sampled, and the commands that ran in this folder."""
    parts: list[Block] = []
    groups: dict[str, list[Record]] = {}
    for record in run.images:
        groups.setdefault(str(record.get("checkpoint") or "no checkpoint named"), []).append(record)
    rows = [
        [Cell(short_name(n)), Cell(_constants(group), wide=True)]
        for n, group in list(groups.items())[-MAX_ROWS:]
    ]
    if rows:
        parts += [Heading("Sampling"), Table(["checkpoint", "settings of its images"], rows)]
    runs = list(deque(run.journal.runs(), MAX_RUNS)) if run.journal is not None else []
    if runs:
        cells = []
        for place, entry in enumerate(runs):
            about = [f"seed {entry['seed']}"] if entry.get("seed") is not None else []
            about += [f"sanactl {entry['version']}"] if entry.get("version") else []
            line = Cell(command_line(entry), (plain(" · ".join(about), 100),), code=True)
            cells.append(
                [
                    line,
                    cell(finite(entry.get("seconds"))),
                    Cell(
                        plain(str(entry.get("time") or "-").replace("T", " ").replace("Z", ""), 40),
                        order=place,
                    ),
                ]
            )
        parts += [Heading("Commands"), Table(["command", "seconds", "ended"], cells)]
    return parts or [Absent("No runs.", "sanactl's commands write themselves down in the folder's journal.")]


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
        f"{plain(key)} {plain(value, 200)}"
        for key, value in alike.items()
        if key not in _OF_AN_IMAGE and isinstance(value, str | int | float | bool) and value != ""
    ]
    return " · ".join(shown) or "-"
