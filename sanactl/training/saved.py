"""Saved states on disk: their list, and whether one is still as it was written.

`state.json`, which is written last, has the size and the CRC-32 of each file of a state (3 GB/s on one core).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["Saved", "checksum", "list_saved", "set_aside"]

_NAME = re.compile(r"step-(\d{8,12})")
_ABOUT = 1 << 20  # bytes of a state.json at most
_CHUNK = 1 << 22


class Saved(NamedTuple):
    """A saved state as its `state.json` describes it.

    Attributes:
        folder: that it is in.
        step: after which it was saved.
        key: of its run; None where `state.json` cannot be read, and `files` is empty then.
        files: size in bytes and CRC-32 of each file, by name.
    """

    folder: Path
    step: int
    key: str | None
    files: Mapping[str, tuple[int, int]]

    def fault(self, *, whole: bool) -> str | None:
        """What is wrong with it, or None.

        Args:
            whole: read every byte; else look at sizes alone.
        """
        if self.key is None:
            return "state.json is missing or damaged"
        for name, (size, crc) in self.files.items():
            path = self.folder / name
            try:
                if not path.is_file() or path.stat().st_size != size:
                    return f"{name} is missing or cut short"
                if whole and checksum(path) != crc:
                    return f"{name} is not what was written"
            except OSError as error:
                return f"{name}: {os.strerror(error.errno or 0)}"
        return None


def list_saved(folder: Path) -> list[Saved]:
    """All states in a folder, of any run, oldest first; other files and folders are ignored."""
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.scandir(folder):
            name = _NAME.fullmatch(entry.name)
            if name and entry.is_dir(follow_symlinks=False):
                found.append(_described(Path(entry.path), int(name[1])))
    return sorted(found, key=lambda saved: saved.step)


def _described(folder: Path, step: int) -> Saved:
    """A saved state as its `state.json` has it, every value checked."""
    unknown = Saved(folder, step, None, {})
    try:
        path = folder / "state.json"
        if not path.is_file() or path.stat().st_size > _ABOUT:
            return unknown
        about = json.loads(path.read_text(encoding="utf-8"))
        files = {name: (size, crc) for name, (size, crc) in about["files"].items()}
        key, told = about["key"], about["step"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return unknown
    numbers = [number for pair in files.values() for number in pair]
    if not isinstance(key, str) or told != step or not files or any(type(n) is not int for n in numbers):
        return unknown
    if any("/" in name or name in ("", ".", "..") for name in files):
        return unknown
    return Saved(folder, step, key, files)


def checksum(path: Path) -> int:
    """The CRC-32 of a file."""
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return value


def set_aside(folder: Path) -> Path:
    """Renames a damaged state, so that it is no longer looked at; where that fails, it stays and is skipped each time."""
    number = 1
    aside = folder.with_name(f"damaged-{folder.name}")
    while os.path.lexists(aside):
        number += 1
        aside = folder.with_name(f"damaged-{folder.name}-{number}")
    with contextlib.suppress(OSError):
        folder.rename(aside)
    return aside
