"""Claims of several processes on pieces of work, by locks on bytes of one file; they end with the process, however it ends."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["Claims"]

_PAUSE = 0.02  # seconds between looks at a piece that another process has claimed


class Claims:
    """Pieces of work that this process has claimed. Its threads share them, and have to divide pieces by themselves.

    Where the system or the file system has no such locks, every claim is granted.

    Args:
        path: the file; it is made, and stays empty.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
            self._descriptor = os.open(path, flags, 0o666)

    @contextlib.contextmanager
    def held(self, pieces: Sequence[bytes], stop: threading.Event) -> Iterator[None]:
        """In the body, no other process has a claim on these pieces. Waits until it is so.

        Args:
            pieces: names of at least eight bytes, such as digests.
            stop: set to wait no longer.
        """
        # In one order, so that no two processes wait for each other.
        places = sorted({int.from_bytes(piece[:8], "big") >> 2 for piece in pieces})
        taken: list[int] = []
        try:
            for place in places:
                while not self._lock(place) and not stop.wait(_PAUSE):
                    pass
                taken.append(place)
            yield
        finally:
            for place in taken:
                self._unlock(place)

    def _lock(self, place: int) -> bool:
        if self._descriptor is None:
            return True
        try:
            import fcntl

            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except BlockingIOError:
            return False
        except PermissionError:  # how some systems say that it is locked
            return False
        except (ImportError, OSError):
            self._descriptor = None
        return True

    def _unlock(self, place: int) -> None:
        if self._descriptor is None:
            return
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, place)
