"""The built-in world's files: the folder that `builtin:shapes` names, and the models that `init` copies."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from sanactl.errors import InputError

__all__ = ["BUILTIN_PREFIX", "asset", "builtin_folder"]

BUILTIN_PREFIX = "builtin:"


def builtin_folder(source: str) -> Path:
    """The folder that `builtin:shapes` names.

    Raises:
        InputError: there is no built-in world of that name.
    """
    if source != f"{BUILTIN_PREFIX}shapes":
        raise InputError(f"unknown built-in world {source!r}", hint="the only one is builtin:shapes")
    return asset("")


def asset(name: str) -> Path:
    """A file or folder of the built-in world, shipped inside the package."""
    return Path(str(resources.files("sanactl.shapes").joinpath("assets", name)))
