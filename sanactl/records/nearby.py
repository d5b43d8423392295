"""Relative image paths of a record file that is read from another folder than the one it was written in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["near_file"]

# How many folders above the file are tried: `sample` writes FOLDER/images.jsonl with paths that begin at FOLDER's parent.
_LEVELS = 4


def near_file(records: Iterator[dict[str, Any]], file: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, with image paths that are valid here.

    A path that names nothing here is taken from the file's folder, or from the nearest folder above it where the image
    is. It becomes absolute, so that it is valid wherever the records go. All other records are unchanged, also those whose
    image is nowhere: the reader of the image names it.

    Args:
        records: of kind `image`, or others.
        file: where they come from.
    """
    home: Path | None = None
    for record in records:
        path = record.get("path")
        if record.get("kind") == "image" and isinstance(path, str) and not os.path.lexists(path):
            if home is None or not os.path.lexists(home / path):
                home = _home(path, file) or home
            if home is not None and os.path.lexists(home / path):
                record = {**record, "path": os.path.normpath(home / path)}
        yield record


def _home(path: str, file: Path) -> Path | None:
    """The nearest folder, from the file's upwards, from which a path is valid."""
    folder = file.absolute().parent
    for candidate in (folder, *list(folder.parents)[: _LEVELS - 1]):
        if os.path.lexists(candidate / path):
            return candidate
    return None
