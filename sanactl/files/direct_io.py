"""Writing past the page cache (O_DIRECT) for large files, and sharing pages between files in place of writing.

A buffered write costs a page of memory for each page of file, which the kernel finds, fills, and later writes out; what
was written last is also what a large file pushes everything else out of memory with. Straight from an aligned buffer to
the disk a gigabyte costs 0.05 s of processor instead of 0.35 s to 2.5 s, and the flush at the end finds nothing to do.
Where the system or the file system has no such thing, callers write as usual.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["DIRECT_FROM", "PAGE", "allocate", "open_direct", "share", "write_direct"]

PAGE = 4096  # bytes; offsets, lengths and addresses are multiples of it, which no disk or file system finds too small
# A smaller file better stays in memory, where the next command finds it.
DIRECT_FROM = 256 << 20  # bytes of data to be written
_FICLONERANGE = 0x4020940D  # linux/fs.h
_KEEP_SIZE = 1  # linux/falloc.h
_NOT_HERE = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EPERM}


def open_direct(path: Path) -> int | None:
    """A descriptor that writes past the page cache, or None where the system has none. The caller closes it."""
    flag = getattr(os, "O_DIRECT", None)
    if flag is None:
        return None
    with contextlib.suppress(OSError):
        return os.open(path, os.O_WRONLY | flag | getattr(os, "O_CLOEXEC", 0))
    return None


def write_direct(descriptor: int, data: memoryview, at: int) -> int:
    """Write whole pages at a page's start; returns the bytes written, 0 where the file system wants it buffered.

    Args:
        descriptor: of `open_direct`.
        data: from a page-aligned address, of a multiple of `PAGE`.
        at: byte in the file, a multiple of `PAGE`.
    """
    try:
        return os.pwrite(descriptor, data, at)
    except OSError as error:
        if error.errno in _NOT_HERE:
            return 0
        raise


def share(source: int, offset: int, target: int, at: int, count: int) -> bool:
    """Let whole pages of one file be those of another until either is written to (man 2 ioctl_ficlonerange).

    Args:
        source, offset: an open file, and the first byte.
        target, at: an open file, and where it gets them.
        count: how many bytes.

    Returns:
        whether they are there now; False where the file system has no such thing, or will not.
    """
    if fcntl is None or sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(target, _FICLONERANGE, struct.pack("qQQQ", source, offset, count, at))
    except OSError:
        return False
    return True


def allocate(descriptor: int, at: int, count: int) -> None:
    """Reserve `count` bytes of disk from byte `at` (man 2 fallocate); nothing where the file system cannot.

    Threads can then write at the same time, where for a hole each would wait for the other, and a disk that is too
    small says so before the work. `os.posix_fallocate` will not do: where there is no such call it writes to each page.

    Raises:
        OSError: no space.
    """
    call = _fallocate()
    if call is None or call(descriptor, _KEEP_SIZE, at, count) == 0:
        return
    import ctypes

    code = ctypes.get_errno()
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        raise OSError(code, os.strerror(code))


@functools.cache
def _fallocate() -> Callable[..., Any] | None:
    import ctypes

    try:
        call = ctypes.CDLL(None, use_errno=True).fallocate64
    except (AttributeError, OSError, TypeError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return call
