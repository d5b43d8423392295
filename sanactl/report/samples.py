"""The images of a report: a strip of the same prompts by checkpoint, and grids with verdicts, winners marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sanactl.report.blocks import Absent, Block, Note
from sanactl.report.images import drawn_once, judges_choice, winners
from sanactl.report.pictures import Picture, Thumbnails
from sanactl.report.run import RunRecords
from sanactl.report.text import finite, plain, short_name
from sanactl.scoring.geneval.rules import TASKS

__all__ = ["Grid", "Strip", "choose_prompts", "samples_section", "strip"]

Record = dict[str, Any]

MAX_ROWS = 12
MAX_IMAGES = 16
MAX_CHECKPOINTS = 4  # rows of one prompt; a checkpoint with one image of it shares a row with others
STRIP_ROWS, STRIP_PROMPTS = 5, 6


@dataclass(frozen=True)
class Grid:
    """One prompt: its task, and (checkpoint and counts, images) for each row."""

    prompt: str
    tag: str
    rows: Sequence[tuple[str, Sequence[Picture]]]
    kind: ClassVar[str] = "grid"


@dataclass(frozen=True)
class StripRow:
    """A checkpoint's images, one for each prompt of the strip; None where a judge's choice has none."""

    name: str
    note: str
    color: str
    pictures: Sequence[Picture | None]


@dataclass(frozen=True)
class Strip:
    """The first screen's images: a column a prompt, a row a checkpoint."""

    prompts: Sequence[str]
    rows: Sequence[StripRow]
    kind: ClassVar[str] = "strip"


def choose_prompts(images: Sequence[Record]) -> list[list[list[Record]]]:
    """The prompts to show, their images by checkpoint: one of every task, then more while there is room."""
    tasks: dict[str, dict[tuple[str, str], dict[str, list[Record]]]] = {}
    for record in images:
        prompts = tasks.setdefault(str(record.get("tag")), {})
        checkpoints = prompts.setdefault(
            (str(record.get("prompt_id", record.get("id"))), record["prompt"]), {}
        )
        checkpoints.setdefault(str(record.get("checkpoint")), []).append(record)
    order = sorted(tasks, key=lambda tag: TASKS.index(tag) if tag in TASKS else len(TASKS))
    chosen: list[tuple[int, int, list[list[Record]]]] = []
    room = MAX_ROWS
    for turn in range(MAX_ROWS):
        for place, tag in enumerate(order[:MAX_ROWS]):
            groups = [list(checkpoints.values()) for checkpoints in tasks[tag].values()]
            if turn >= len(groups) or (turn and room <= 0):
                continue
            # Spread over the task, for a benchmark's prompts stand in the order of their objects.
            step = max(1, len(groups) * len(order) // MAX_ROWS)
            rows = [drawn_once(row) for row in groups[turn * step % len(groups)]]
            room -= len([row for row in rows if len(row) > 1][-MAX_CHECKPOINTS:]) or 1
            chosen.append((place, turn, rows))
    return [rows for _, _, rows in sorted(chosen, key=lambda item: item[:2])]


def strip(run: RunRecords, chain: Sequence[str], thumbnails: Thumbnails) -> Strip | None:
    """The same prompts drawn by several checkpoints, with the same seeds; None without images.

    Args:
        chain: the checkpoints that the page's answer is about, oldest first; without images of these, the first ones.
    """
    checkpoints: dict[str, dict[str, list[Record]]] = {}
    for record in run.images:
        prompts = checkpoints.setdefault(str(record.get("checkpoint")), {})
        prompts.setdefault(record["prompt"], []).append(record)
    if not checkpoints:
        return None
    names = [name for name in chain if name in checkpoints] or list(checkpoints)
    names = [*names[:1], *names[1:][-(STRIP_ROWS - 1) :]]
    chosen = _prompts_of_all([checkpoints[name] for name in names])
    if not chosen:
        names = names[:1]
        chosen = list(checkpoints[names[0]])[:STRIP_PROMPTS]
    rows = []
    for name in names:
        found = [min(checkpoints[name][p], key=_index) for p in chosen]
        pictures = [_picture(r, thumbnails, winner=False, large=True) for r in found]
        rows.append(StripRow(short_name(name), _blocks(run, name), run.color(name), pictures))
    choices = [judges_choice(drawn_once(checkpoints[names[-1]][p])) for p in chosen]
    sizes = [choice[1] for choice in choices if choice]
    if len(rows) < STRIP_ROWS and sizes:
        best = [_picture(c[0], thumbnails, winner=True, large=True) if c else None for c in choices]
        few, most = min(sizes), max(sizes)
        note = f"the judge's choice of {most if few == most else f'{few} to {most}'}"
        rows.append(StripRow(short_name(names[-1]), note, run.color(names[-1]), best))
    return Strip([plain(p, 200) for p in chosen], rows)


def _prompts_of_all(checkpoints: Sequence[dict[str, list[Record]]]) -> list[str]:
    """Prompts that all checkpoints have drawn: one of every task, then more."""
    common = [p for p in checkpoints[0] if all(p in prompts for prompts in checkpoints[1:])]
    tasks: dict[str, list[str]] = {}
    for prompt in common:
        tasks.setdefault(str(checkpoints[0][prompt][0].get("tag")), []).append(prompt)
    order = sorted(tasks, key=lambda tag: TASKS.index(tag) if tag in TASKS else len(TASKS))
    turns = max(map(len, tasks.values()), default=0)
    chosen = [
        tasks[tag][turn]
        for turn in range(min(turns, STRIP_PROMPTS))
        for tag in order
        if turn < len(tasks[tag])
    ]
    return chosen[:STRIP_PROMPTS]


def _index(record: Record) -> int:
    index = record.get("index")
    return index if type(index) is int else 0


def _blocks(run: RunRecords, name: str) -> str:
    facts = run.lineages.facts.get(name)
    return f"{facts.blocks} blocks" if facts and facts.blocks else ""


def samples_section(run: RunRecords, chain: Sequence[str], thumbnails: Thumbnails) -> list[Block]:
    """The grids.

    Args:
        chain: the checkpoints that the page's answer is about: their images first, if there is no room for all.
    """
    if not run.images:
        return [Absent("No image records.", "sanactl sample, judge and eval write them.")]
    several = len({str(r.get("checkpoint")) for r in run.images}) > 1
    lead = (
        f"Some prompts of each task, out of {len(run.images):,} images. What the judge chose has a green border. "
        "A click on an image enlarges it, beside those of other checkpoints."
    )
    parts: list[Block] = [Note(lead)]
    for rows in choose_prompts(run.images):
        first = rows[0][0]
        shown: list[tuple[str, list[Picture]]] = []
        singles = [row[0] for row in rows if len(row) == 1][-MAX_IMAGES:]
        if singles:
            pictures = [
                _picture(r, thumbnails, winner=r["path"] in winners([r]), named=several) for r in singles
            ]
            shown.append(("", pictures))
        several_images = [row for row in rows if len(row) > 1]
        wanted = sorted(several_images, key=lambda row: str(row[0].get("checkpoint")) not in chain)[
            :MAX_CHECKPOINTS
        ]
        for row in [row for row in several_images if any(row is w for w in wanted)]:
            shown.append(_row(row, thumbnails, named=several))
        tag = plain(first["tag"]).replace("_", " ") if first.get("tag") else ""
        parts.append(Grid(plain(first["prompt"], 400), tag, shown))
    return parts


def _row(row: Sequence[Record], thumbnails: Thumbnails, *, named: bool) -> tuple[str, list[Picture]]:
    """One checkpoint's images of a prompt, the winners among them, and what stands above them."""
    best = winners(row)
    places = sorted(range(len(row)), key=lambda i: row[i]["path"] not in best)[:MAX_IMAGES]
    shown = [row[i] for i in sorted(places)]
    note = [short_name(row[0].get("checkpoint"))] if named else []
    note += _verdicts(row)
    if len(row) > len(shown):
        note.append(f"{len(shown)} of {len(row)} images shown, the winners among them")
    return " · ".join(note), [_picture(r, thumbnails, winner=r["path"] in best) for r in shown]


def _verdicts(row: Sequence[Record]) -> list[str]:
    known = [r["correct"] for r in row if isinstance(r.get("correct"), bool)]
    return [f"{sum(known)} of {len(known)} correct"] if known else []


def _picture(
    record: Record, thumbnails: Thumbnails, *, winner: bool, named: bool = False, large: bool = False
) -> Picture:
    """A record's image with what is known of it."""
    source, small, fault = thumbnails.embed(record["path"], large=large)
    checkpoint = short_name(record.get("checkpoint"))
    lines = [(checkpoint, "")] if named else []
    if not large:
        lines += [("★ winner", "strong")] if winner else []
    if (score := finite(record.get("judge_score"))) is not None:
        lines.append((f"judge {plain(record.get('verdict') or '', 12)} {score:+.3f}", ""))
    if record.get("correct") is True:
        lines.append(("✓ correct", "good"))
    elif record.get("correct") is False:
        reason = plain(str(record.get("reason") or "wrong").replace("\n", "; "), 120)
        lines.append((f"✗ {reason}", "bad"))
    if large:  # there is room for one line
        lines.reverse()
        lines = [(f"★ {text}" if winner and i == 0 else text, tone) for i, (text, tone) in enumerate(lines)]
    name = f"seed {record['seed']}" if "seed" in record else Path(record["path"]).name
    index = record.get("index")
    of = f"{checkpoint}, image {index + 1}" if type(index) is int else checkpoint
    return Picture(source, fault, small, plain(name), plain(record["prompt"], 400), of, lines, winner)
