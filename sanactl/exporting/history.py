"""The commands that led to the records of an export, by the folder's journal."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sanactl.errors import SanactlError
from sanactl.records.journal import Journal
from sanactl.records.records import stream_records
from sanactl.report.history import command_line
from sanactl.report.text import plain

__all__ = ["commands_before", "without_folders"]

_MOST = 40  # commands
_SEARCHED = 50  # runs in which the records of a pipe are looked for
_FULL_PATH = re.compile(r"(?<![\w./-])(?:~|file:)?/(?:[^\s/'\"]+/)+(?=[^\s/'\"])")


def commands_before(source: str | None, first: Mapping[str, Any], journal: Journal) -> list[str]:
    """The commands that made a file of records and what it was made from, oldest first, each once.

    Of full paths the last part is shown. Times are not, so that the same work gives the same text.

    Args:
        source: the file or folder, None for a pipe: its records are looked for among the newest outputs.
        first: the first record.
    """
    runs = list(journal.runs())
    made: dict[str, int] = {}
    for place, run in enumerate(runs):
        made.update((str(output["path"]), place) for output in run["outputs"])
    start = _written(first, journal) if source is None else journal.relative(source)
    waiting, found = [start] if start is not None else [], set[int]()
    while waiting:
        place_of = made.get(waiting.pop())
        if place_of is not None and place_of not in found:
            found.add(place_of)
            waiting += [str(entry["path"]) for entry in runs[place_of]["inputs"]]
    lines = dict.fromkeys(without_folders(plain(command_line(runs[n]), 400)) for n in sorted(found))
    return list(lines)[-_MOST:]


def without_folders(text: str) -> str:
    """A text in which full paths are shortened to their last part."""
    return _FULL_PATH.sub("", text)


def _written(first: Mapping[str, Any], journal: Journal) -> str | None:
    """The newest output that begins with this record; else the list of images of the folder that it lies in."""
    for run in itertools.islice(journal.newest_first(), _SEARCHED):
        for output in run["outputs"]:
            if output.get("kind") == "image" and _first_of(journal.folder / output["path"]) == first:
                return str(output["path"])
    folders = Path(str(first.get("path"))).parents
    listing = folders[2] / "images.jsonl" if len(folders) > 2 else None
    return journal.relative(listing) if listing is not None and os.path.exists(listing) else None


def _first_of(path: Path) -> dict[str, Any] | None:
    try:
        return next(stream_records(path, kinds=("image",)), None) if path.is_file() else None
    except SanactlError:
        return None
