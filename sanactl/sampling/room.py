"""Whether a disk can hold the images that are wanted."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from sanactl.errors import UsageError
from sanactl.files.human import human_bytes
from sanactl.model.sampling_settings import SamplingSettings

__all__ = ["check_room"]

# A file takes at least a block of the disk, and a drawn image is hardly ever smaller than one bit for each pixel.
_BLOCK = 4096


def check_room(folder: Path, images: int, settings: SamplingSettings) -> None:
    """Refuse a number of images that cannot fit, before models are loaded.

    A folder that is there may have most of them already, so its whole disk counts; of a new folder's, what is free.

    Raises:
        UsageError: names the number, what they take at the least, and what there is.
    """
    least = images * max(_BLOCK, settings.height * settings.width // 8)
    place = next((p for p in (folder, *folder.absolute().parents) if p.is_dir()), None)
    if place is None:
        return
    with contextlib.suppress(OSError):
        disk = shutil.disk_usage(place)
        room, what = (disk.total, "has") if place == folder else (disk.free, "has free")
        if least > room > 0:
            raise UsageError(
                f"{images:,} images take at least {human_bytes(least)}, and the disk of {folder} {what} {human_bytes(room)}",
                hint="take less with -n or --limit, or name another disk with -o",
            )
