"""The sample grids of a report: some prompts of every task, as thumbnails with verdicts, winners marked."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.files.images import read_image
from sanactl.report.page import absent, escape, finite, short_name
from sanactl.scoring.geneval.rules import TASKS

__all__ = ["add_image", "choose_prompts", "merge_images", "samples_section", "winners"]

Record = dict[str, Any]

MAX_ROWS = 12
MAX_IMAGES = 16
MAX_CHECKPOINTS = 3  # rows of one prompt; a checkpoint with one image of it shares a row with others
# Base64 characters of all thumbnails together; the page has to stay under 5 MB with its plots and tables.
BUDGET = 3_500_000
SMALL = 96  # px; an image of at most this size is embedded as it is, larger ones are reduced to THUMBNAIL
THUMBNAIL = 224


# What a page does not show of an image: a benchmark has tens of thousands of images with their boxes.
_UNSHOWN = frozenset(("detections", "include", "exclude", "ranks"))


def merge_images(records: Iterable[Record]) -> list[Record]:
    """One record for each image, with the fields of sampling, judging and scoring together."""
    merged: dict[str, Record] = {}
    for record in records:
        if record.get("kind") == "image":
            add_image(merged, record)
    return list(merged.values())


def add_image(merged: dict[str, Record], record: Record) -> None:
    """Adds a record's fields to those of its image; `merged` has images by their paths.

    The ranks that judges gave are kept for each judge, as `ranks`: {judge: (rank, samples)}.
    """
    known = merged.setdefault(str(record["path"]), {})
    known.update({k: v for k, v in record.items() if v is not None and k not in _UNSHOWN})
    ranks = {**known.pop("ranks", {}), **_ranks(record)}
    if ranks:
        known["ranks"] = ranks


def _ranks(record: Record) -> dict[str, tuple[int, Any]]:
    """What judges said of an image: its rank, and how many images its prompt had then."""
    if isinstance(record.get("ranks"), dict):
        # A field of that name in a file has no tuples.
        return {judge: said for judge, said in record["ranks"].items() if isinstance(said, tuple)}
    rank = record.get("rank")
    return {str(record.get("judge")): (rank, record.get("samples"))} if type(rank) is int else {}


def winners(images: Sequence[Record]) -> set[str]:
    """The paths of those of one prompt's images that a judge chose.

    Of a judge that ranked all of a prompt's images the first (rank 0) is the winner. One that kept some has ranked
    these alone, and each of them is a winner. Images that no judge has seen do not matter.
    """
    judges: dict[str, list[tuple[str, int, Any]]] = {}
    for record in images:
        for judge, (rank, samples) in _ranks(record).items():
            judges.setdefault(judge, []).append((record["path"], rank, samples))
    chosen: set[str] = set()
    for ranked in judges.values():
        sizes = [samples for _, _, samples in ranked if type(samples) is int]
        kept_some = len(ranked) < (max(sizes) if sizes else len(images))
        chosen |= {path for path, rank, _ in ranked if rank == 0 or kept_some}
    return chosen


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
            rows = groups[turn * step % len(groups)]
            room -= len([row for row in rows if len(row) > 1][-MAX_CHECKPOINTS:]) or 1
            chosen.append((place, turn, rows))
    return [rows for _, _, rows in sorted(chosen, key=lambda item: item[:2])]


def samples_section(images: Sequence[Record], folder: Path) -> str:
    """The grids as HTML.

    Args:
        images: merged image records.
        folder: what relative paths are relative to.
    """
    if not images:
        return absent("No image records.", "sanactl sample, judge and eval write them.")
    thumbnails = _Thumbnails(folder)
    several = len({str(r.get("checkpoint")) for r in images}) > 1
    parts = []
    for rows in choose_prompts(images):
        first = rows[0][0]
        tag = (
            f' <span class="soft">{escape(first["tag"]).replace("_", " ")}</span>' if first.get("tag") else ""
        )
        parts.append(f'<h3><span class="prompt">{escape(first["prompt"])}</span>{tag}</h3>')
        singles = [row[0] for row in rows if len(row) == 1][-MAX_IMAGES:]
        if singles:
            cells = [
                _cell(r, thumbnails.picture(r), r["path"] in winners([r]), named=several) for r in singles
            ]
            parts.append(f'<div class="grid">{"".join(cells)}</div>')
        for row in [row for row in rows if len(row) > 1][-MAX_CHECKPOINTS:]:
            best = winners(row)
            places = sorted(range(len(row)), key=lambda i: row[i]["path"] not in best)[:MAX_IMAGES]
            shown = [row[i] for i in sorted(places)]
            note = [escape(short_name(row[0].get("checkpoint")))] if several else []
            note += _verdicts(row)
            if len(row) > len(shown):
                note.append(f"{len(shown)} of {len(row)} images shown, the winners among them")
            cells = [_cell(r, thumbnails.picture(r), r["path"] in best) for r in shown]
            parts.append(f'<p class="soft">{" · ".join(note)}</p><div class="grid">{"".join(cells)}</div>')
    lead = (
        f"Some prompts of each task, out of {len(images):,} images. What the judge chose has a green border."
    )
    return f"<p>{lead}</p>" + "".join(parts)


def _verdicts(row: Sequence[Record]) -> list[str]:
    known = [r["correct"] for r in row if isinstance(r.get("correct"), bool)]
    return [f"{sum(known)} of {len(known)} correct"] if known else []


def _cell(record: Record, picture: str, winner: bool, *, named: bool = False) -> str:
    lines = [escape(short_name(record.get("checkpoint")))] if named else []
    lines += ["<b>★ winner</b>"] if winner else []
    if (score := finite(record.get("judge_score"))) is not None:
        lines.append(f"judge {escape(record.get('verdict') or '', 12)} {score:+.3f}")
    if record.get("correct") is True:
        lines.append('<span class="good">✓ correct</span>')
    elif record.get("correct") is False:
        reason = escape(str(record.get("reason") or "wrong").replace("\n", "; "), 120)
        lines.append(f'<span class="bad">✗</span> {reason}')
    mark = " class=winner" if winner else ""
    return f"<figure{mark}>{picture}<figcaption>{'<br>'.join(lines)}</figcaption></figure>"


class _Thumbnails:
    """Image elements with their data inside, as long as the page has room for them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.room = folder, BUDGET

    def picture(self, record: Record) -> str:
        """A record's image, or a frame that says why there is none."""
        try:
            uri, small = _data_uri(self.folder / record["path"])
        except (InputError, OSError, ValueError):
            return '<div class="gone">image not found or not readable</div>'
        if len(uri) > self.room:
            return '<div class="gone">left out: the page would grow past 5 MB</div>'
        self.room -= len(uri)
        name = escape(f"seed {record['seed']}" if "seed" in record else Path(record["path"]).name)
        return f'<img{" class=small" if small else ""} src="{uri}" alt="{name}" title="{name}">'


def _data_uri(path: Path) -> tuple[str, bool]:
    """(data URI, whether the image is so small that it was kept as it is)."""
    from PIL import Image

    image = Image.fromarray(read_image(path))
    small = max(image.size) <= SMALL
    buffer = io.BytesIO()
    if small:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        image.save(buffer, "JPEG", quality=82, optimize=True)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", small
