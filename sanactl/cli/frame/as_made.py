"""Checking that an output is unchanged since the run in the journal that made it."""

from __future__ import annotations

from pathlib import Path

from sanactl.checkpoint.open import open_checkpoint
from sanactl.errors import InputError
from sanactl.files.content import files_digest
from sanactl.records.records import Record

__all__ = ["is_as_made", "small_digest"]

_SMALL = 16 << 20  # bytes; for outputs up to this size, the journal has a digest of the content


def small_digest(path: Path) -> str | None:
    """The digest of a file of at most `_SMALL` bytes; None for a larger file or a folder."""
    try:
        small = path.is_file() and path.stat().st_size <= _SMALL
        return files_digest([path]) if small else None
    except (OSError, InputError):
        return None


def is_as_made(path: Path, made: Record) -> bool:
    """Whether an output agrees with its entry in the journal, as far as the entry tells."""
    digest = made.get("digest")
    if not isinstance(digest, str):
        return True
    if made.get("kind") != "checkpoint":
        return small_digest(path) == digest
    try:
        return open_checkpoint(path, native=True).digest == digest
    except InputError:
        return False
