"""The lock of a training run."""

from __future__ import annotations

from pathlib import Path

from sanactl.files.folder_lock import FolderLock
from sanactl.training.state import state_folder

__all__ = ["TargetLock"]


class TargetLock(FolderLock):
    """While it is open, no other run trains the target; see `FolderLock`.

    Raises:
        InputError: another run has the lock, or the folder of the state cannot be made.
    """

    def __init__(self, target: Path) -> None:
        super().__init__(target, state_folder(target))
