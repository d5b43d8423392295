"""The layouts that checkpoint files may have other than diffusers' own."""

from __future__ import annotations

from pathlib import Path

from sanactl.checkpoint.layouts.diffusers import SAFETENSORS
from sanactl.checkpoint.layouts.entry import Layout
from sanactl.checkpoint.layouts.native_files import NATIVE, NATIVE_SAFETENSORS

__all__ = ["LAYOUTS", "layout_of", "layout_read", "layout_written"]

# The first that holds a file opens it. What none of them holds is in diffusers' layout, which is more than files: folders,
# whole pipelines and Hub ids (`sanactl.checkpoint.locate`, `sanactl.checkpoint.layouts.diffusers`).
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (NATIVE, NATIVE_SAFETENSORS)}


def layout_of(path: Path) -> Layout | None:
    """The layout that opens a file; None where it is diffusers' own, a folder, or nothing."""
    suffix = path.suffix.lower()
    for layout in LAYOUTS.values():
        if suffix in layout.reads and path.is_file() and layout.holds(path):
            return layout
    return None


def layout_read(suffix: str) -> Layout | None:
    """The layout of files with this suffix, if such files are never in diffusers' layout."""
    if suffix in SAFETENSORS:
        return None
    return next((layout for layout in LAYOUTS.values() if suffix in layout.reads), None)


def layout_written(suffix: str) -> Layout | None:
    """The layout that files of a suffix are written in; None for diffusers' own, and where nothing is written."""
    return next((layout for layout in LAYOUTS.values() if suffix in layout.writes), None)
