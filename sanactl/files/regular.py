"""Opening files that a user or a record names: only regular files, up to a size limit."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

from sanactl.errors import InputError

__all__ = ["open_regular"]


def open_regular(path: Path | str, *, most: int | None = None, what: str = "file") -> IO[bytes]:
    """Open a regular file for reading. Pipes, sockets and devices are refused: they may never end or never begin.

    Args:
        path: the file; symbolic links are followed.
        most: the largest size allowed, in bytes; None for any.
        what: what an error calls it ("image").

    Raises:
        InputError: it is missing, cannot be read, is not a regular file, or is larger than `most`.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for its writer; regular files are not affected.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InputError(f"{path}: no such {what}") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise InputError(f"{path}: is not a regular file")
        if most is not None and about.st_size > most:
            raise InputError(f"{path}: larger than {most >> 20} MiB")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
