"""Where the built-in world's files lie: `builtin:shapes` in a checkpoint's components, and what `init` copies."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from sanactl.errors import InputError

__all__ = ["BUILTIN_PREFIX", "asset", "builtin_folder"]

BUILTIN_PREFIX = "builtin:"


def builtin_folder(source: str) -> Path:
    """The folder that `builtin:shapes` stands for.

    Raises:
        InputError: if there is no built-in world of that name.
    """
    if source != f"{BUILTIN_PREFIX}shapes":
        raise InputError(f"unknown built-in world {source!r}", hint="the only one is builtin:shapes")
    return asset("")


def asset(name: str) -> Path:
    """A file or folder of the built-in world, shipped inside the package."""
    return Path(str(resources.files("sanactl.shapes").joinpath("assets", name)))
