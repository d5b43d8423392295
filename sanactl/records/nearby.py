"""Relative image paths of a record file that is read from another folder than the one it was written in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

__all__ = ["near_file"]


def near_file(records: Iterator[dict[str, Any]], file: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, with image paths that are valid here.

    A relative path that names nothing here is tried from the file's folder. It is also tried where the path begins with
    the names of the folders that the file is in: `sample` writes FOLDER/images.jsonl with paths that begin with FOLDER. No
    other place is tried, since another run's image may have the same name there. A path that is found becomes absolute,
    so that it is valid wherever the records go. All other records are unchanged: the reader of the image names it.

    Args:
        records: of kind `image`, or others.
        file: where they come from.
    """
    folder = file.absolute().parent
    for record in records:
        path = record.get("path")
        if record.get("kind") == "image" and isinstance(path, str) and not os.path.lexists(path):
            found = next((p for p in _places(PurePath(path), folder) if os.path.lexists(p)), None)
            if found is not None:
                record = {**record, "path": os.path.abspath(found)}
        yield record


def _places(path: PurePath, folder: Path) -> Iterator[Path]:
    """Where an image can lie whose path is relative to the folder of a record file, or to one above it that it names."""
    if path.is_absolute():
        return
    yield folder / path
    for count in range(1, min(len(path.parts), len(folder.parts))):
        if path.parts[:count] == folder.parts[-count:]:
            yield folder.joinpath(*path.parts[count:])
