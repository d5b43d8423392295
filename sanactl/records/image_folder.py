"""Image records of a plain folder of images, without prompts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.files.images import SUFFIXES

__all__ = ["list_images", "read_image_folder"]


def list_images(folder: Path) -> list[Path]:
    """The images in a folder and the folders in it, by their suffixes, in the order of their names.

    Hidden files and folders are left out, and links to folders are not followed.

    Raises:
        InputError: it cannot be read, or there are no images.
    """

    def fault(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read as a folder ({error.strerror})")

    found = []
    for place, folders, files in os.walk(folder, onerror=fault):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(place) / name
            for name in files
            if not name.startswith(".") and name.lower().endswith(SUFFIXES)
        ]
    if not found:
        raise InputError(f"{folder}: no images in it", hint=f"images end with {', '.join(SUFFIXES[:4])} ...")
    return sorted(found)


def read_image_folder(folder: Path) -> Iterator[dict[str, Any]]:
    """{"kind": "image", "path", "prompt": ""} of each image of a folder; see `list_images`."""
    for path in list_images(folder):
        yield {"kind": "image", "path": str(path), "prompt": ""}
