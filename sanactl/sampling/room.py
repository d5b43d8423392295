"""Whether a disk can hold the images that are wanted."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

from sanactl.errors import UsageError
from sanactl.files.human import human_bytes
from sanactl.model.sampling_settings import SamplingSettings
from sanactl.sampling.search.policy import Rules
from sanactl.sampling.search.rounds import Rounds

__all__ = ["check_room", "check_room_of_search"]

# A file takes at least a block of the disk, and a drawn image is hardly ever smaller than one bit for each pixel.
_BLOCK = 4096


def check_room(
    folder: Path, images: int, settings: SamplingSettings, *, less_with: str = "-n or --limit"
) -> None:
    """Refuse a number of images that cannot fit, before models are loaded.

    A folder that is there may have most of them already, so its whole disk counts; of a new folder's, what is free.

    Args:
        less_with: the options that make the number smaller.

    Raises:
        UsageError: names the number, what they take at the least, and what there is.
    """
    if said := _too_many(folder, images, settings):
        raise UsageError(said, hint=f"take less with {less_with}, or name another disk with -o")


def check_room_of_search(
    folder: Path, prompts: int, rules: Rules, settings: SamplingSettings, tell: Callable[[str], None]
) -> None:
    """Refuse a search whose first round cannot fit, and tell of one that may come to draw too many images.

    A search mostly stops long before it has drawn the most images of each prompt. So these are no reason to refuse it.

    Args:
        prompts: how many there are.
        tell: gets the line.

    Raises:
        UsageError: see `check_room`.
    """
    first = sum(len(indexes) for _, indexes in Rounds([""] * prompts, rules).next_images())
    check_room(folder, first, settings, less_with="--round or --limit")
    most = prompts * rules.most if rules.budget is None else min(prompts * rules.most, rules.budget)
    if said := _too_many(folder, most, settings):
        tell(f"warning: if no prompt stops early, {said}")


def _too_many(folder: Path, images: int, settings: SamplingSettings) -> str | None:
    """What cannot fit, in words; None where it may fit or nothing is known of the disk."""
    least = images * max(_BLOCK, settings.height * settings.width // 8)
    place = next((p for p in (folder, *folder.absolute().parents) if p.is_dir()), None)
    if place is None:
        return None
    with contextlib.suppress(OSError):
        disk = shutil.disk_usage(place)
        room, what = (disk.total, "has") if place == folder else (disk.free, "has free")
        if least > room > 0:
            return (
                f"{images:,} images take at least {human_bytes(least)}, and the disk of {folder} {what}"
                f" {human_bytes(room)}"
            )
    return None
