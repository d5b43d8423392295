"""Append whole lines to a file that several processes write."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time

__all__ = ["append_lines", "append_to", "try_lock"]

PATIENCE = 5.0  # seconds to wait for the lock; a suspended process may hold it without end


def append_lines(path: str | os.PathLike[str], data: bytes) -> None:
    """Append lines to a file; a missing file is created.

    One process writes at a time. If the last line has no newline (its writer was killed, or the disk was full), the new
    lines begin on a line of their own. A write that the disk cuts short is undone.

    Args:
        path: a regular file.
        data: lines, each with its newline.

    Raises:
        OSError: the file cannot be written, or is not a regular file; it is unchanged.
    """
    # Without O_NONBLOCK, opening a named pipe would wait for a reader.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        append_to(descriptor, data, locked=_lock(descriptor))
    finally:
        os.close(descriptor)


def append_to(descriptor: int, data: bytes, *, locked: bool) -> None:
    """Add lines to a file that is open for reading and appending; see `append_lines`.

    Args:
        locked: whether this process has the file's lock. Without it, another process may have written after a write that
            was cut short. Then the half line stays, and the next line begins below it.
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


def try_lock(descriptor: int, *, shared: bool = False) -> bool | None:
    """Take the lock of an open file if no other process has it.

    Args:
        shared: others may have it, too, if theirs are shared.

    Returns:
        True: this process has the lock until it closes the file. False: another process has it. None: this system or
        file system has no locks.
    """
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _lock(descriptor: int) -> bool:
    """Wait for the lock for at most `PATIENCE` seconds; returns whether it was taken."""
    until = time.monotonic() + PATIENCE
    pause = 0.001
    while (got := try_lock(descriptor)) is False and time.monotonic() < until:
        with contextlib.suppress(InterruptedError):
            time.sleep(pause)
        pause = min(2 * pause, 0.05)
    return got is True
