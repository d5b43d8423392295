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
LITTLE_TEMPORARY = 100e6  # bytes
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
    """Free space where outputs, downloads and temporary files go, and whether these folders can be written."""
    from huggingface_hub.constants import HF_HUB_CACHE

    yield _free("this folder", place.folder, LITTLE, "outputs may not fit")
    what = "a published 1.6B pipeline takes 8.5 GB"
    yield _kept(
        "Hub cache",
        Path(HF_HUB_CACHE),
        "nothing can be downloaded; HF_HOME names another",
        LITTLE_CACHE,
        what,
    )
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError:
        yield warning("temporary files", "no folder for them can be written; TMPDIR names one")
    else:
        yield _free("temporary files", temporary, LITTLE_TEMPORARY, "commands that need them may fail")
    if any(device.type == "cuda" for device in place.devices):
        kernels = Path(os.environ.get("TRITON_CACHE_DIR") or "~/.triton/cache").expanduser()
        what = "Triton's kernels cannot be kept; TRITON_CACHE_DIR names another"
        yield _kept("kernel cache", kernels, what, LITTLE_TEMPORARY, "compiled kernels may not fit")


def _kept(of: str, folder: Path, unwritable: str, little: float, why: str) -> Finding:
    """The free space of a cache, if files can be made in it."""
    if not os.access(_there(folder), os.W_OK | os.X_OK):
        return warning(of, f"{folder} cannot be written: {unwritable}")
    return _free(of, folder, little, why)


def _free(of: str, folder: Path, little: float, why: str) -> Finding:
    free = shutil.disk_usage(_there(folder)).free
    says = f"{human_bytes(free)} free in {folder}"
    if free < little:
        return warning(of, f"{says}: {why}", free, unit="bytes")
    return ok(of, says, free, unit="bytes")


def _there(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there: nothing may have been downloaded into a cache yet."""
    there = folder.absolute()
    while not there.is_dir() and there != there.parent:
        there = there.parent
    return there
