"""Open files that a user or a record names: only regular files, up to a size limit."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

from sanactl.errors import InputError

__all__ = ["open_regular"]


def open_regular(path: Path | str, *, most: int | None = None, what: str = "file") -> IO[bytes]:
    """Opens a file to be read, if it is a regular one: a pipe, socket or device may give bytes for ever, or none.

    Args:
        path: the file; symbolic links are followed.
        most: bytes that it may have.
        what: how an error calls it ("image").

    Raises:
        InputError: it is not there, cannot be read, is no regular file, or is larger than `most`.
    """
    try:
        # Without O_NONBLOCK the opening of a pipe waits for its writer; a regular file is read as without it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InputError(f"{path}: no such {what}") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise InputError(f"{path}: is no regular file")
        if most is not None and about.st_size > most:
            raise InputError(f"{path}: larger than {most >> 20} MiB")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
