"""The format that the name of an output asks for."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sanactl.checkpoint.layouts.diffusers import DIFFUSERS, SAFETENSORS
from sanactl.checkpoint.layouts.registry import LAYOUTS, layout_written
from sanactl.errors import UsageError

__all__ = ["target_kind", "target_layout"]


def target_kind(target: str | os.PathLike[str]) -> str:
    """The kind that a target's name asks for: "file" (.st, .safetensors), "folder" (no suffix) or a layout ("native").

    A part after a dot that begins with a digit ("sana-1.5") is not a suffix. A name that ends in a slash is a folder's.

    Raises:
        UsageError: the name has another suffix.
    """
    text = os.fspath(target)
    suffix = "" if text.endswith(("/", os.sep)) else Path(text).suffix.lower()
    if suffix in SAFETENSORS:
        return "file"
    if layout := layout_written(suffix):
        return layout.name
    if re.fullmatch(r"\.[a-z]\w*", suffix):
        raise UsageError(
            f"cannot write {suffix} files ({text})",
            hint=f"name {' or '.join(_written())} file, or a folder (no suffix)",
        )
    return "folder"


def target_layout(target: str | os.PathLike[str]) -> str:
    """The `Plan.layout` that a target's name asks for; raises the errors of `target_kind`."""
    kind = target_kind(target)
    return kind if kind in LAYOUTS else DIFFUSERS


def _written() -> list[str]:
    """The usual suffix of each layout that can be written, with its article."""
    return [f"a {s}" for s in (SAFETENSORS[0], *(x.writes[0] for x in LAYOUTS.values() if x.writes))]
