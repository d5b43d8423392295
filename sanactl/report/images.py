"""Image records brought together: one for each image, the judges' winners, copies left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["add_image", "drawn_once", "judges_choice", "merge_images", "winners"]

Record = dict[str, Any]

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


def judges_choice(images: Sequence[Record]) -> tuple[Record, int] | None:
    """(the first winner among one prompt's images, how many images its judge chose among).

    None where no judge chose among several. Images that no judge has seen do not count.
    """
    for record in (r for r in images if r["path"] in winners(images)):
        sizes = [
            samples if type(samples) is int else sum(judge in _ranks(r) for r in images)
            for judge, (_, samples) in _ranks(record).items()
        ]
        if max(sizes) > 1:
            return record, max(sizes)
    return None


def drawn_once(images: Sequence[Record]) -> list[Record]:
    """Without copies: the image of one checkpoint, prompt and seed may lie in two folders. A judged one stays."""
    kept: dict[object, Record] = {}
    for record in images:
        seed, digest = record.get("seed"), record.get("digest")
        key: object = (
            record["path"] if seed is None or digest is None else (str(digest), str(seed), _settings(record))
        )
        if key not in kept or ("ranks" in record and "ranks" not in kept[key]):
            kept[key] = record
    return list(kept.values())


def _settings(record: Record) -> str:
    return repr(
        [record.get(f) for f in ("steps", "guidance_scale", "height", "width", "negative_prompt", "index")]
    )
