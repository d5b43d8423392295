"""Listing the files of a folder, and their identity (names and contents), which does not depend on the folder's path."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sanactl.errors import InputError

__all__ = ["digest_of", "identity_of_files", "list_folder", "suffix_of"]

MOST_FILES = 10_000_000
# Files of so many bytes in all are known by their contents. Reading them takes a fraction of a second; a larger set is
# known by its files' names, sizes and times of the last change.
READ_WHOLE = 128 * 2**20
# Folders that macOS adds to archives.
_FOREIGN = ("__MACOSX",)


def list_folder(root: Path) -> list[str]:
    """The regular files in a folder and the folders below it, as sorted paths relative to it.

    Names that begin with a dot are left out (`.DS_Store`, `._a.jpg`, `.git/`). Links are followed; a folder to which
    several lead is listed once, under its own name if it has one here.

    Raises:
        InputError: a folder cannot be read, or there are more than ten million files.
    """
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    links = [""]
    while links:
        link = links.pop(0)
        waiting = [link]
        while waiting:
            folder = waiting.pop()
            try:
                about = os.stat(root / folder)
                if (about.st_dev, about.st_ino) in seen:
                    continue
                seen.add((about.st_dev, about.st_ino))
                with os.scandir(root / folder) as entries:
                    for entry in entries:
                        if entry.name.startswith(".") or entry.name in _FOREIGN:
                            continue
                        path = f"{folder}/{entry.name}" if folder else entry.name
                        if entry.is_file():
                            found.append(path)
                        elif entry.is_dir():
                            (links if entry.is_symlink() else waiting).append(path)
            except OSError as error:
                raise InputError(f"{root / folder}: cannot be read as a folder ({error.strerror})") from None
            if len(found) > MOST_FILES:
                raise InputError(
                    f"{root}: holds more than {MOST_FILES:,} files", hint="name a folder inside it"
                )
        links.sort()
    return sorted(found)


def suffix_of(name: str) -> str:
    """How a file's name ends, in small letters: ".png"."""
    return os.path.splitext(name)[1].lower()


def identity_of_files(root: Path, names: Sequence[str], *more: Any) -> str:
    """A fingerprint of files: their names below a folder, and their contents, or sizes and times if they are large.

    The same for every path that leads to the folder, and another one when a file is changed, added or taken away.

    Args:
        more: whatever else counts.
    """
    total = 0
    abouts: list[str] = []
    for name in names:
        try:
            about = os.stat(root / name)
        except (OSError, ValueError):
            abouts.append("not there")
            continue
        total += about.st_size
        abouts.append(f"{about.st_size} {about.st_mtime_ns}")
    if total <= READ_WHOLE:
        abouts = [
            _content(root / name) if about != "not there" else about
            for name, about in zip(names, abouts, strict=True)
        ]
    return digest_of(
        [f"{name}\0{about}" for name, about in zip(names, abouts, strict=True)] + [str(m) for m in more]
    )


def _content(path: Path) -> str:
    """A digest of a file, no more than `READ_WHOLE` bytes of it."""
    from sanactl.files.regular import open_regular

    digest = hashlib.sha256()
    try:
        with open_regular(path, most=READ_WHOLE) as stream:
            while block := stream.read(2**20):
                digest.update(block)
    except (InputError, OSError) as error:
        return type(error).__name__
    return digest.hexdigest()


def digest_of(lines: Iterable[str]) -> str:
    """A fingerprint of lines of text."""
    digest = hashlib.sha256()
    for line in lines:
        # The length before each keeps ("a", "b") apart from ("a\\nb",).
        data = line.encode("utf-8", "surrogatepass")
        digest.update(b"%d\0" % len(data) + data)
    return digest.hexdigest()
