"""The disk: what the folder's file system can do, and free space."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sanactl.bench.doctor.finding import Finding, Place, ok, warning, wrong
from sanactl.files.append import try_lock
from sanactl.files.direct_io import PAGE, open_direct, share, write_direct
from sanactl.files.human import human_bytes

__all__ = ["check_disk", "check_folder"]

_SIZE = 64 * PAGE  # bytes of a trial file
LITTLE = 2e9  # bytes; grown.st and the images of some runs of the built-in world take less
LITTLE_CACHE = 10e9  # bytes; the published pipeline of the 1.6B takes 8.5 GB


def check_folder(place: Place) -> Iterator[Finding]:
    """Sharing pages between files, direct writes and locks. The files of this trial have no name, so that none is left."""
    try:
        with (
            tempfile.TemporaryFile(dir=place.folder) as source,
            tempfile.TemporaryFile(dir=place.folder) as target,
        ):
            data = os.urandom(_SIZE)
            source.write(data)
            source.flush()
            os.fsync(source.fileno())
            shares = share(source.fileno(), 0, target.fileno(), 0, _SIZE)
            if shares and _content(target) != data:
                yield wrong("reflink", "files that share pages here have other bytes than their source")
            target.truncate(0)
            direct = _write_directly(target, data)
            if direct and _content(target) != data:
                yield wrong(
                    "direct writes",
                    "a direct write (O_DIRECT) here does not give the bytes that were written",
                )
            locks = try_lock(source.fileno()) is not None
    except OSError as error:
        yield warning(
            "this folder",
            f"it cannot be written ({os.strerror(error.errno or 0).lower()}), so commands need -o with another folder",
        )
        return
    facts = {"reflink": shares, "direct": direct, "locks": locks}
    says = ", ".join(
        (
            "copies share their pages (reflink)" if shares else "copies are written in full (no reflink)",
            "large files are written directly" if direct else "writes go through the page cache",
            "locks work" if locks else "the file system has no locks: start one run at a time here",
        )
    )
    yield (ok if locks else warning)("this folder", says, None, **facts)


def _write_directly(target: IO[bytes], data: bytes) -> bool:
    """Whether the data could be written to the start of the file without the page cache."""
    descriptor = open_direct(Path(f"/proc/self/fd/{target.fileno()}"))
    if descriptor is None:
        return False
    try:
        with mmap.mmap(-1, len(data)) as pages, memoryview(pages) as view:  # it begins at the start of a page
            view[:] = data
            return write_direct(descriptor, view, 0) == len(data)
    finally:
        os.close(descriptor)


def _content(file: IO[bytes]) -> bytes:
    return os.pread(file.fileno(), _SIZE, 0)


def check_disk(place: Place) -> Iterator[Finding]:
    """Free space where outputs, downloads and temporary files go."""
    from huggingface_hub.constants import HF_HUB_CACHE

    what = "a published 1.6B pipeline takes 8.5 GB"
    yield _free("this folder", place.folder, LITTLE, "outputs may not fit")
    yield _free("Hub cache", Path(HF_HUB_CACHE), LITTLE_CACHE, what)


def _free(of: str, folder: Path, little: float, why: str) -> Finding:
    there = folder.absolute()
    while not there.is_dir() and there != there.parent:
        there = there.parent  # of a cache that nothing was downloaded into yet
    free = shutil.disk_usage(there).free
    says = f"{human_bytes(free)} free in {folder}"
    if free < little:
        return warning(of, f"{says}: {why}", free, unit="bytes")
    return ok(of, says, free, unit="bytes")
