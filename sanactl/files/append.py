"""Append lines to a file that several processes write: whole lines or none, whatever was there before."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time

__all__ = ["append_lines", "append_to", "try_lock"]

PATIENCE = 5.0  # seconds to wait for the lock; a process that was stopped may hold it for ever


def append_lines(path: str | os.PathLike[str], data: bytes) -> None:
    """Append lines to a file; a missing file is made.

    One process writes at a time. Should the last line lack its end (its writer was killed, or the disk was full), the new
    ones begin below it. A write that the disk cuts short is taken back.

    Args:
        path: a regular file.
        data: lines, each with its end.

    Raises:
        OSError: the file cannot be written, or is no regular file; it is as it was.
    """
    # Without O_NONBLOCK a named pipe would wait right here for a reader.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no regular file", os.fspath(path))
        append_to(descriptor, data, locked=_lock(descriptor))
    finally:
        os.close(descriptor)


def append_to(descriptor: int, data: bytes, *, locked: bool) -> None:
    """Adds lines to a file that is open for reading and appending; see `append_lines`.

    Args:
        locked: whether this process has the file's lock. Without it another's line may stand behind a write that was cut
            short: the half line stays, and the next begins below it.
    """
    end = os.fstat(descriptor).st_size
    if end and os.pread(descriptor, 1, end - 1) != b"\n":
        data = b"\n" + data
    written = 0
    try:
        while written < len(data):
            written += os.write(descriptor, data[written:])
    except OSError:
        if locked and written:
            os.ftruncate(descriptor, end)
        raise


def try_lock(descriptor: int) -> bool | None:
    """Takes the lock of an open file if no other process has it.

    Returns:
        True with the lock, which lasts until the file is closed; False where another has it; None where this system or
        file system has no locks.
    """
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _lock(descriptor: int) -> bool:
    """Waits for the lock, at most `PATIENCE`; whether it is there."""
    until = time.monotonic() + PATIENCE
    pause = 0.001
    while (got := try_lock(descriptor)) is False and time.monotonic() < until:
        with contextlib.suppress(InterruptedError):
            time.sleep(pause)
        pause = min(2 * pause, 0.05)
    return got is True
