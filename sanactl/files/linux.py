"""Calls of Linux that Python does not have. They say False on other systems."""

from __future__ import annotations

import errno
import os
from pathlib import Path

__all__ = ["RENAME_EXCHANGE", "RENAME_NOREPLACE", "renameat2", "syncfs"]

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2  # linux/fs.h


def renameat2(source: Path, target: Path, flags: int) -> bool:
    """Linux's rename with flags (man 2 renameat2). False where the system or the file system does not have it."""
    import ctypes

    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here = -100  # AT_FDCWD
    if call(here, os.fsencode(source), here, os.fsencode(target), ctypes.c_uint(flags)) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), os.fspath(target))


def syncfs(folder: Path) -> bool:
    """Linux's flush of a whole file system (man 2 syncfs). False where the system does not have it, or where it fails."""
    import ctypes

    try:
        call = ctypes.CDLL(None, use_errno=True).syncfs
    except (AttributeError, OSError, TypeError):
        return False
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        return int(call(descriptor)) == 0
    finally:
        os.close(descriptor)
