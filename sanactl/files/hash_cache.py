"""Hashes of large files, remembered from run to run by what the file system says of a file.

An entry belongs to a file's device, inode, size, and times of change to the nanosecond: `ctime` moves with every write,
also where a program sets `mtime` back. It is a file of its own under the user's cache folder, written in one step and
sealed by a checksum, so that runs side by side do not disturb each other and a damaged entry is no entry. Nothing here
fails where there is no folder to write to: then files are read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from pathlib import Path

__all__ = ["MAX_ENTRIES", "MAX_ENTRY", "cache_folder", "recall", "remember"]

MAX_ENTRIES = 256  # the oldest go; of SANA's 60 blocks one has 45 KB
MAX_ENTRY = 4 << 20  # bytes
_SEAL = 32  # bytes
# How old a time of change has to be before the next change is sure to have another one: a few ticks of the kernel's
# clock, or where a file system writes whole seconds, two of these.
_FINE_AGE, _COARSE_AGE = 50_000_000, 2_500_000_000  # nanoseconds


def cache_folder() -> Path | None:
    """Where entries lie: below XDG_CACHE_HOME, else ~/.cache; None where there is no home folder."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):
        return Path(named) / "sanactl" / "hashes"
    home = os.path.expanduser("~")
    return (
        Path(home) / ".cache" / "sanactl" / "hashes" if os.path.isabs(home) and os.path.isdir(home) else None
    )


def recall(status: os.stat_result, what: bytes) -> bytes | None:
    """What was remembered of a file in this state, or None.

    Args:
        status: of the file, as it is now.
        what: tells apart what can be remembered of one file.
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
        os.utime(path)  # used just now: it goes last
    return data[_SEAL:]


def remember(status: os.stat_result, what: bytes, data: bytes) -> None:
    """Keep `data` for a file in this state, if that state cannot hide a later change and there is a place."""
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
    """Whether a change from now on is sure to move `ctime`; waits a few milliseconds for it."""
    if os.name == "nt":  # where ctime is the time of creation
        return False
    needed = _FINE_AGE if status.st_ctime_ns % 1_000_000 else _COARSE_AGE
    age = time.time_ns() - status.st_ctime_ns
    if 0 <= age < needed == _FINE_AGE:
        time.sleep((needed - age) / 1e9)
        age = time.time_ns() - status.st_ctime_ns
    return age >= needed


def _bound(folder: Path) -> None:
    """Remove the oldest entries past `MAX_ENTRIES`, and temporaries that a killed run left among them.

    Another run may remove the same entries at the same time, so each may be gone already.
    """
    found: list[tuple[int, str]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.path))
    for _, path in sorted(found)[: max(0, len(found) - MAX_ENTRIES)]:
        with contextlib.suppress(OSError):
            os.unlink(path)
