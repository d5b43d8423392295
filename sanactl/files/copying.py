"""Copying files byte for byte, without moving the bytes where the file system can share them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sanactl.files.direct_io import share
from sanactl.files.regular import open_regular

__all__ = ["copy_file"]


def copy_file(source: Path, target: Path, *, link: bool = False) -> None:
    """Make `target` a file with the bytes of `source`.

    Where the file system can (Btrfs, XFS), both files share their bytes until one of them is written to.

    Args:
        source: a regular file, or a link to one.
        target: does not exist yet.
        link: make a hard link, a second name of the same file. Where that is not possible, the file is copied.

    Raises:
        InputError: the source is missing or not a regular file.
        OSError: the target cannot be written.
    """
    with open_regular(source, what="image") as stream:
        if link:
            try:
                os.link(os.path.realpath(source), target)
                return
            except OSError:  # another file system, or one without hard links
                pass
        with target.open("xb") as copy:
            if not share(stream.fileno(), 0, copy.fileno(), 0, 0):  # 0: to the end
                shutil.copyfileobj(stream, copy, 2**20)
