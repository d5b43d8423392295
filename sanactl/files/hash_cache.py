"""A cache of large files' hashes, kept from run to run.

The key of an entry is the file's device, inode, size, and times of change to the nanosecond: `ctime` changes with every
write, also where a program sets `mtime` back. Each entry is a file under the user's cache folder, written in one step
and protected by a checksum. So parallel runs do not disturb each other, and a damaged entry is ignored. If the cache
folder cannot be written, nothing fails: files are read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from pathlib import Path

__all__ = ["MAX_ENTRIES", "MAX_ENTRY", "cache_folder", "recall", "remember"]

MAX_ENTRIES = 256  # the oldest are removed; the entry of SANA's 60 blocks has 45 KB
MAX_ENTRY = 4 << 20  # bytes
_SEAL = 32  # bytes
# How old a time of change must be, so that the next change certainly gets a different one: a few ticks of the kernel's
# clock, or two seconds where a file system stores whole seconds.
_FINE_AGE, _COARSE_AGE = 50_000_000, 2_500_000_000  # nanoseconds


def cache_folder() -> Path | None:
    """The folder of the entries: below XDG_CACHE_HOME, else ~/.cache; None if there is no home folder."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):
        return Path(named) / "sanactl" / "hashes"
    home = os.path.expanduser("~")
    return (
        Path(home) / ".cache" / "sanactl" / "hashes" if os.path.isabs(home) and os.path.isdir(home) else None
    )


def recall(status: os.stat_result, what: bytes) -> bytes | None:
    """The data remembered for a file in this state, or None.

    Args:
        status: the file's present `os.stat` result.
        what: part of the key; distinguishes several entries of one file.
    """
    folder = cache_folder()
    if folder is None:
        return None
    key = _key(status, what)
    path = folder / key
    try:
        if path.stat().st_size > MAX_ENTRY:
            return None
        data = path.read_bytes()
    except (OSError, ValueError):
        return None
    if hashlib.sha256(key.encode() + data[_SEAL:]).digest() != data[:_SEAL]:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # used just now: removed last
    return data[_SEAL:]


def remember(status: os.stat_result, what: bytes, data: bytes) -> None:
    """Keep `data` for a file in this state, unless a later change could go unnoticed or there is no cache folder."""
    folder = cache_folder()
    if folder is None or len(data) + _SEAL > MAX_ENTRY or not _settled(status):
        return
    key = _key(status, what)
    with contextlib.suppress(OSError, ValueError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".")
        try:
            with open(descriptor, "wb") as file:
                file.write(hashlib.sha256(key.encode() + data).digest() + data)
            os.replace(temporary, folder / key)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _bound(folder)


def _key(status: os.stat_result, what: bytes) -> str:
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return hashlib.sha256(repr(state).encode() + b"\0" + what).hexdigest()


def _settled(status: os.stat_result) -> bool:
    """Whether any change from now on certainly changes `ctime`; may wait a few milliseconds until that is so."""
    if os.name == "nt":  # there ctime is the time of creation
        return False
    needed = _FINE_AGE if status.st_ctime_ns % 1_000_000 else _COARSE_AGE
    age = time.time_ns() - status.st_ctime_ns
    if 0 <= age < needed == _FINE_AGE:
        time.sleep((needed - age) / 1e9)
        age = time.time_ns() - status.st_ctime_ns
    return age >= needed


def _bound(folder: Path) -> None:
    """Remove the oldest entries beyond `MAX_ENTRIES`, and temporary files of killed runs.

    Another run may remove the same entries at the same time, so any of them may be missing already.
    """
    found: list[tuple[int, str]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.path))
    for _, path in sorted(found)[: max(0, len(found) - MAX_ENTRIES)]:
        with contextlib.suppress(OSError):
            os.unlink(path)
