"""Tar files whose bytes depend on their members alone."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sanactl.exporting.plan import ExportPlan
from sanactl.files.atomic import atomic_path

__all__ = ["image_members", "write_tar"]


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Writes a .tar, whole or not at all; one that is there is replaced.

    All members are regular files of user 0 with permissions 644 and time 0.

    Args:
        members: names and contents.

    Raises:
        SanactlError: the disk is full, or there is no permission.
    """
    with (
        atomic_path(path, force=True) as temporary,
        tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def image_members(plan: ExportPlan) -> list[dict[str, Any]]:
    """The columns that `datasets` makes of image members: one for each suffix."""
    return [
        *({"name": name, "dtype": "image"} for name in sorted(suffix[1:] for suffix in plan.suffixes)),
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
    ]
