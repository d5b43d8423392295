"""Temporary files beside a write's target: their names, their locks, and the removal of leftovers.

A process id means nothing in another container or on another machine. So the writer locks its temporary file: the kernel
releases the lock when the process ends, however it ends. Some file systems have no locks, or locks that other machines
do not see; there the time of the last write decides whether a file is a leftover.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import secrets
import shutil
import stat
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Temporary", "make_file", "make_folder", "reclaim", "set_aside"]

# .<target's name>.<machine>-<its start>-<random>.tmp is a new output, .old an output that is being replaced.
_NAME = re.compile(
    r"^\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})-(?P<boot>[0-9a-f]{8})-[0-9a-f]{8}\.(?P<kind>tmp|old)$", re.DOTALL
)
_NAME_BYTES = 180  # of the target's name kept in the temporary's name; common file systems allow 255 in all
_TRIES = 20  # attempts to make a temporary file that no other process takes immediately
_OLD = 7 * 24 * 3600.0  # seconds
_OPEN = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

_TAKEN = {errno.EAGAIN, errno.EACCES}

_held: set[Temporary] = set()
_scanned: set[tuple[int, int, int]] = set()  # (pid, st_dev, st_ino) of folders that this process has cleaned


class Temporary:
    """A new file or folder, locked by this process until `remove`, `release` or the end of the process.

    Attributes:
        path: its path.
        mode: its permissions, those of any new file or folder here.
    """

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path, self._descriptor, self._process = path, descriptor, os.getpid()
        self.mode = stat.S_IMODE(os.lstat(path).st_mode)
        _held.add(self)

    def remove(self) -> None:
        """Remove what is still there under the name, and release the lock; does nothing in a forked child."""
        if self._process == os.getpid():
            with contextlib.suppress(OSError):  # the next write removes what stays
                _remove(self.path)
        self.release()

    def release(self) -> None:
        """Release the lock."""
        _held.discard(self)
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _release_all() -> None:
    """Close a forked child's copies of the locks; otherwise it would hold them after the parent's death."""
    for temporary in list(_held):
        temporary.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_all)


def make_file(target: Path) -> Temporary:
    """An empty file beside `target`, locked.

    Raises:
        OSError: it cannot be made.
    """
    return _make(target, _create_file)


def make_folder(target: Path) -> Temporary:
    """An empty folder beside `target`, locked.

    Raises:
        OSError: it cannot be made.
    """
    return _make(target, _create_folder)


def set_aside(target: Path) -> Temporary:
    """Rename the folder `target`, so that another can take its name; it is locked before it is renamed."""
    descriptor = _open(target)
    if descriptor is not None:
        _lock(descriptor)
    aside = _name(target, "old")
    os.rename(target, aside)
    return Temporary(aside, descriptor)


def _make(target: Path, create: Callable[[Path], int | None]) -> Temporary:
    for last in (*[False] * _TRIES, True):
        path = _name(target, "tmp")
        descriptor = create(path)
        # Before it was locked here, another process may have treated it as a leftover and removed it.
        ours = (descriptor is None or _lock(descriptor) is not False) and os.path.lexists(path)
        if ours or last:
            return Temporary(path, descriptor)
        if descriptor is not None:
            os.close(descriptor)
    raise AssertionError


def _create_file(path: Path) -> int:
    # opened for writing, because network disks need that for a lock
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | _OPEN, 0o666)


def _create_folder(path: Path) -> int | None:
    os.mkdir(path)
    return _open(path)


def _open(path: Path) -> int | None:
    """A descriptor for locking a file or a folder, or None where the system has none."""
    for flags in (os.O_RDWR, os.O_RDONLY):  # a folder opens for reading only
        with contextlib.suppress(OSError):
            return os.open(path, flags | _OPEN)
    return None


def _lock(descriptor: int) -> bool | None:
    """Whether this process has the lock now; None where there are no locks."""
    if fcntl is None:
        return None
    try:
        if (
            sys.platform != "linux"
            or not stat.S_ISREG(os.fstat(descriptor).st_mode)
            or not _lock_byte(descriptor)
        ):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _TAKEN else None
    return True


def _lock_byte(descriptor: int) -> bool:
    """Lock one byte of a file, far beyond its data; False where the kernel has no such lock.

    The lock belongs to the descriptor (man 2 fcntl_locking, "open file description locks"). A lock of the process would
    end when any descriptor of the file is closed. flock (man 2 flock) locks the whole file, and on a Windows share nobody
    else could then write to it. A folder opens for reading only, so flock is its only lock.

    Raises:
        OSError: another process has it, or the file system has no locks.
    """
    wanted = struct.pack(
        "hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 1 << 62, 1, 0
    )  # struct flock: from where, how many bytes
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def _name(target: Path, kind: str) -> Path:
    name = os.fsdecode(os.fsencode(target.name)[:_NAME_BYTES])
    host, boot = _machine()
    return target.with_name(f".{name}.{host}-{boot}-{secrets.token_hex(4)}.{kind}")


@functools.cache
def _machine() -> tuple[str, str]:
    """Eight hex digits of this machine's name, and of its last start; all its containers have the same."""
    host = os.uname().nodename.encode() if hasattr(os, "uname") else b""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:  # not Linux
        boot = host
    return f"{zlib.crc32(host):08x}", f"{zlib.crc32(boot):08x}"


def _started() -> float:
    """When this machine was started, in seconds since 1970; 0 if unknown."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return 0.0 if clock is None else time.time() - time.clock_gettime(clock)


def reclaim(folder: Path, *, again: bool = False) -> list[Path]:
    """Remove the temporary files that ended processes left in `folder`.

    A process searches a folder once (`again`: once more). A locked temporary file stays. An unlocked one that this machine
    made is a leftover. Any other may belong to another machine, whose locks may be invisible here; it is removed after a
    week without a write.

    Returns:
        the paths that were removed, or put back after an interrupted replacement.
    """
    done: list[Path] = []
    try:
        found = folder.stat()
        key = (os.getpid(), found.st_dev, found.st_ino)
        if key in _scanned and not again:
            return done
        _scanned.add(key)
        names = os.listdir(folder)
    except OSError:
        return done  # the write itself reports what is wrong with the folder
    for name in names:
        match = _NAME.match(name)
        if match is None:
            continue
        path, target = folder / name, folder / match["name"]
        with contextlib.suppress(OSError), _claimed(path, match) as leftover:
            if not leftover:
                continue
            if match["kind"] == "old" and not os.path.lexists(target):
                path.rename(target)
            else:
                _remove(path)
            if not os.path.lexists(path):
                done.append(path)
    return done


@contextlib.contextmanager
def _claimed(path: Path, name: re.Match[str]) -> Iterator[bool]:
    """Whether a temporary file is a leftover. It is locked during the body, so that no other process can take it."""
    descriptor = _open(path)
    try:
        locked = None if descriptor is None else _lock(descriptor)
        yield locked is not False and _is_leftover(path, name, locked is True)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _is_leftover(path: Path, name: re.Match[str], locked: bool) -> bool:
    host, boot = _machine()
    if locked and name["boot"] == boot:
        return True
    found = os.lstat(path)
    # a folder that was set aside has kept the time of its last write
    last = max(found.st_mtime, found.st_ctime) if name["kind"] == "old" else found.st_mtime
    if name["host"] == host and name["boot"] != boot and last < _started():
        return True
    return time.time() - last > _OLD


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
