"""The temporary file that a write fills beside its target: its name, the lock that its writer holds, and leftovers.

A process id says nothing to a container with process ids of its own, or to another machine. A lock on the temporary itself
is the kernel's: it ends with the process that holds it, whatever ends that. Some file systems have no such locks, or keep
them to one machine; where a lock cannot tell, the time of the last write decides.
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

# .<target's name>.<machine>-<its start>-<random>.tmp holds a new output, .old an output that is being replaced.
_NAME = re.compile(
    r"^\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})-(?P<boot>[0-9a-f]{8})-[0-9a-f]{8}\.(?P<kind>tmp|old)$", re.DOTALL
)
_NAME_BYTES = 180  # of the target's name kept in a temporary's: 255 is the limit of every common file system
_TRIES = 20  # to make a temporary that no other process takes at once
_OLD = 7 * 24 * 3600.0  # seconds
_OPEN = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

_TAKEN = {errno.EAGAIN, errno.EACCES}

_held: set[Temporary] = set()
_scanned: set[tuple[int, int, int]] = set()  # (pid, st_dev, st_ino) of folders that this process has cleaned


class Temporary:
    """A new file or folder that is this process's own until `remove` or the end of the process.

    Attributes:
        path: where it is.
        mode: its permissions, those of any new file or folder.
    """

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path, self._descriptor, self._process = path, descriptor, os.getpid()
        self.mode = stat.S_IMODE(os.lstat(path).st_mode)
        _held.add(self)

    def remove(self) -> None:
        """Removes what is still there under the name, and gives up the lock; nothing in a forked child."""
        if self._process == os.getpid():
            with contextlib.suppress(OSError):  # whatever stays is removed by the next write
                _remove(self.path)
        self.release()

    def release(self) -> None:
        """Gives up the lock."""
        _held.discard(self)
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _release_all() -> None:
    """In a forked child: it would hold its parent's locks after the parent was killed."""
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
    """Renames the folder `target` so that another can take its place; the lock stands before the name."""
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
        # Between the making and the locking another process may have taken it for a leftover, locked and removed it.
        ours = (descriptor is None or _lock(descriptor) is not False) and os.path.lexists(path)
        if ours or last:
            return Temporary(path, descriptor)
        if descriptor is not None:
            os.close(descriptor)
    raise AssertionError


def _create_file(path: Path) -> int:
    # for writing, since network disks give no other lock on it
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | _OPEN, 0o666)


def _create_folder(path: Path) -> int | None:
    os.mkdir(path)
    return _open(path)


def _open(path: Path) -> int | None:
    """A descriptor to lock a file or a folder by, or None where the system gives none."""
    for flags in (os.O_RDWR, os.O_RDONLY):  # a folder opens for reading only
        with contextlib.suppress(OSError):
            return os.open(path, flags | _OPEN)
    return None


def _lock(descriptor: int) -> bool | None:
    """Whether the lock is ours now; None where there are no locks."""
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
    """Lock a file at one byte that no data reach; False where the kernel has no such lock.

    This lock belongs to the descriptor (man 2 fcntl_locking, "open file description locks"): a process's own would end with
    any close of the file. On a Windows share nobody else could write to a file that flock (man 2 flock) locks as a whole;
    for a folder, which opens for reading only, there is nothing but flock.

    Raises:
        OSError: another holds it, or the file system has no locks.
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
    """Eight hex digits of this machine's name, and of its last start, which all its containers have in common."""
    host = os.uname().nodename.encode() if hasattr(os, "uname") else b""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:  # not Linux
        boot = host
    return f"{zlib.crc32(host):08x}", f"{zlib.crc32(boot):08x}"


def _started() -> float:
    """When this machine was started, in seconds since 1970; 0 where that cannot be known."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return 0.0 if clock is None else time.time() - time.clock_gettime(clock)


def reclaim(folder: Path, *, again: bool = False) -> list[Path]:
    """Remove the temporaries that ended processes left in `folder`.

    A folder is looked through once a process (`again` looks anew). A temporary that is locked stays. One that is not is a
    leftover if it is of this machine since its start, or of this machine before. What else lies there may be another
    machine's, whose locks need not be seen here: it goes after a week without a write to it.

    Returns:
        the paths removed, or put back where a replacement was cut short.
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
        return done  # the write itself will say what is wrong with the folder
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
    """Whether a temporary is a leftover. Inside, no process can lock it and take it for its own."""
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
