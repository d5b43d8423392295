"""Images with the prompts that they are of: none twice, none missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.records.records import Record

__all__ = ["check_complete", "distinct", "held", "item_of"]

_HINT = "sample what is missing, or score what is there with --allow-missing"

_HELD = (
    "path",
    "prompt",
    "prompt_id",
    "tag",
    "samples",
    "checkpoint",
    "digest",
    "judge",
    "judge_score",
    "rank",
)


def distinct(records: Iterable[Record]) -> Iterator[Record]:
    """The records as they come.

    Raises:
        InputError: an image comes twice.
    """
    paths: set[str] = set()
    for record in records:
        if record["path"] in paths:
            raise InputError(f"{record['path']} comes twice", hint="score a stream of distinct images")
        paths.add(record["path"])
        yield record


def held(record: Mapping[str, Any]) -> Record:
    """The fields of an image that the score at the end needs; a benchmark has thousands of images."""
    return {name: record[name] for name in _HELD if name in record}


def item_of(record: Mapping[str, Any]) -> str:
    """The `item_id` of an image's prompt: the record's own, else its `prompt_id`, else the file's name."""
    for name in ("item_id", "prompt_id"):
        if record.get(name) is not None:
            return str(record[name])
    return Path(record["path"]).name.split(".")[0]


def check_complete(items: Iterable[str], seen: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Raises InputError where items have no image, or fewer than others or than were sampled.

    Args:
        items: all that there should be.
        seen: the image records of each item.
    """
    missing = [item for item in items if item not in seen]
    if missing:
        raise InputError(
            f"{len(missing):,} of the questions' prompts have no image, the first {missing[0][:80]!r}",
            hint=_HINT,
        )
    every = [record for records in seen.values() for record in records]
    if any(r.get("judge") is not None or r.get("rank") is not None for r in every):
        return  # a judge has chosen among them
    most = max(map(len, seen.values()), default=0)
    for item, records in seen.items():
        wanted = max(most, records[0].get("samples") or 0)
        if len(records) < wanted:
            raise InputError(f"{item[:80]!r} has {len(records)} of {wanted} images", hint=_HINT)
