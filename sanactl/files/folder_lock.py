"""A lock by which only one run at a time makes a target; the kernel releases it when the process ends."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType

from sanactl.errors import InputError
from sanactl.files.append import try_lock

__all__ = ["FolderLock"]


class FolderLock:
    """While it is open, no other run makes the target. It makes the folder of the run's state and locks that.

    A folder that is still empty at the end is removed. Where the file system has no locks, nothing is held.

    Args:
        target: what is made, for errors.
        folder: of the run's state.
        shared: several runs may make it together, each a part of its own.

    Raises:
        InputError: another run has the lock, or the folder cannot be made.
    """

    def __init__(self, target: Path, folder: Path, *, shared: bool = False) -> None:
        self.target, self.folder, self._shared = target, folder, shared
        self._descriptor: int | None = None

    def __enter__(self) -> FolderLock:
        try:
            while self._descriptor is None:
                self.folder.mkdir(exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # the run that had it has just removed it
                    self._descriptor = self._take(os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            raise InputError(
                f"{self.folder}: the state of the run cannot be kept there ({os.strerror(error.errno or 0).lower()})",
                hint="name another place with -o",
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _take(self, descriptor: int) -> int | None:
        """The descriptor with the lock, or None where the folder has been replaced meanwhile."""
        if try_lock(descriptor, shared=self._shared) is False:
            os.close(descriptor)
            raise InputError(
                f"{self.target}: another run is making it right now",
                hint="wait for that one, or name another output with -o",
            )
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(self.folder)):
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None
