"""Git LFS pointers: three lines of text in place of a large file that has not been downloaded."""

from __future__ import annotations

from pathlib import Path

from sanactl.errors import InputError

__all__ = ["is_pointer", "pointer_error", "refuse_pointers"]

_START = b"version https://git-lfs.github.com/spec/"
_LONGEST = 1024  # bytes; the specification's limit


def is_pointer(path: Path) -> bool:
    """Whether a regular file is a pointer; False if it cannot be read."""
    try:
        if not path.is_file() or path.stat().st_size > _LONGEST:
            return False
        with path.open("rb") as file:
            return file.read(len(_START)) == _START
    except (OSError, ValueError):
        return False


def pointer_error(path: Path) -> InputError:
    """The error for a pointer."""
    return InputError(
        f"{path} is a Git LFS pointer, not the file itself", hint=f"run git lfs pull in {path.parent}"
    )


def refuse_pointers(folder: Path) -> None:
    """Raise InputError if a file directly in this folder is a pointer; other checks would only say "not valid"."""
    try:
        files = sorted(folder.iterdir())
    except OSError:
        return
    for path in files:
        if is_pointer(path):
            raise pointer_error(path)
