"""All-or-nothing writes: a temporary beside the target, flushed, then renamed.

A reader never sees half a file. A killed process leaves at most a hidden temporary, whose name carries its process id
and its machine; the next write into the same folder removes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from sanactl.errors import OutputExistsError, SanactlError, UsageError

__all__ = ["atomic_dir", "atomic_path", "check_target", "reclaim"]

# .<target's name>.<machine>-<pid>-<random>.tmp holds a new output, .old an output that is being replaced.
_TEMPORARY = re.compile(
    r"^\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})-(?P<pid>[0-9]+)-[0-9a-f]{8}\.(?P<kind>tmp|old)$", re.DOTALL
)
_NAME_BYTES = 180  # of the target's name kept in a temporary's: 255 is the limit of every common file system
_OLD = 7 * 24 * 3600.0  # seconds
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2  # linux/fs.h

_scanned: set[tuple[int, int, int]] = (
    set()
)  # (pid, st_dev, st_ino) of the folders already cleaned by this process


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str], force: bool = False) -> Iterator[Path]:
    """Write a file all at once: yields a temporary path beside `target` and renames it when the body is done.

    Args:
        target: the file to make. A symbolic link is replaced, never written through.
        force: replace what is there.

    Yields:
        an existing, empty file in the target's folder, with the permissions of a new file.

    Raises:
        OutputExistsError: the target exists (checked before the body and again, atomically, after it).
        SanactlError: no such folder, no permission, read-only or full disk.
    """
    target = Path(target)
    check_target(target, force)
    temporary = _temporary_name(target)
    with _explained(target):
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mode = temporary.stat().st_mode
    try:
        with _explained(target, only=_NO_SPACE | {errno.EROFS}):
            yield temporary
            # safetensors replaces the file by one of its own that only its owner can read
            temporary.chmod(mode & 0o777)
            _sync(temporary)
        with _explained(target):
            _publish(temporary, target, force)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


@contextlib.contextmanager
def atomic_dir(target: str | os.PathLike[str], force: bool = False) -> Iterator[Path]:
    """Like `atomic_path` for a folder: yields an empty temporary folder that becomes `target`.

    With `force` the folder that was there is swapped out in one step where the system can (Linux), else set aside and
    put back by the next write should the process die between the two renames.
    """
    target = Path(target)
    check_target(target, force)
    temporary = _temporary_name(target)
    with _explained(target):
        temporary.mkdir()
    try:
        with _explained(target, only=_NO_SPACE | {errno.EROFS}):
            yield temporary
            for path in sorted(temporary.rglob("*")):
                if not path.is_symlink():
                    _sync_folder(path) if path.is_dir() else _sync(path)
        with _explained(target):
            _publish_folder(temporary, target, force)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _sync_folder(target.parent)


def check_target(target: str | os.PathLike[str], force: bool = False) -> None:
    """Refuse early what `atomic_path` would refuse at the end, and remove the temporaries of dead processes.

    Raises:
        OutputExistsError: the target exists and `force` is false.
        SanactlError: the target's folder is missing or is not a folder.
    """
    target = Path(target)
    if target.name in ("", ".", ".."):
        raise UsageError(f"{target} is no name for an output", hint="name a file with -o")
    if not target.parent.is_dir():
        what = "is not a folder" if target.parent.exists() else "does not exist"
        raise SanactlError(f"cannot write {target}: {target.parent} {what}", hint=f"mkdir -p {target.parent}")
    if os.path.lexists(target) and not force:
        raise OutputExistsError(
            f"{target} already exists", hint="name another with -o, or replace it with --force"
        )
    reclaim(target.parent)


def reclaim(folder: Path, *, again: bool = False) -> list[Path]:
    """Remove the temporaries that dead processes of this machine left in `folder`.

    A folder is looked through once a process (`again` looks anew). Whether a process of another machine or container
    lives cannot be known from here: what it left on a shared disk goes after a week without a write to it.

    Returns:
        the paths removed, or put back where a replacement was cut short.
    """
    done: list[Path] = []
    try:
        stat = folder.stat()
        key = (os.getpid(), stat.st_dev, stat.st_ino)
        if key in _scanned and not again:
            return done
        _scanned.add(key)
        names = os.listdir(folder)
    except OSError:
        return done  # the write itself will say what is wrong with the folder
    for name in names:
        match = _TEMPORARY.match(name)
        path = folder / name
        if match is None or not (_is_dead(match) or _is_old(path)):
            continue
        target = folder / match["name"]
        with contextlib.suppress(OSError):
            if match["kind"] == "old" and not os.path.lexists(target):
                path.rename(target)
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            done.append(path)
    return done


def _temporary_name(target: Path, kind: str = "tmp") -> Path:
    name = os.fsdecode(os.fsencode(target.name)[:_NAME_BYTES])
    return target.with_name(f".{name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.{kind}")


def _host() -> str:
    """Eight hex digits of this machine's name: processes are counted anew on every machine."""
    return f"{zlib.crc32(os.uname().nodename.encode() if hasattr(os, 'uname') else b''):08x}"


def _is_dead(name: re.Match[str]) -> bool:
    """Whether a temporary's process was one of this machine and has ended."""
    if name["host"] != _host():
        return False
    try:
        os.kill(int(name["pid"]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False  # another user's
    return False


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.lstat().st_mtime > _OLD
    except OSError:
        return False


def _publish(temporary: Path, target: Path, force: bool) -> None:
    """Give the finished file its name; without `force` never over another, whoever made it meanwhile."""
    if force:
        if target.is_dir() and not target.is_symlink():
            raise SanactlError(f"{target} is a folder", hint="name a file with -o")
        os.replace(temporary, target)
        return
    try:
        if _renameat2(temporary, target, _RENAME_NOREPLACE):
            return
        try:
            os.link(temporary, target)
        except FileExistsError:
            raise
        except OSError:  # no hard links here (FAT, some network disks): the check before the body has to do
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            os.rename(temporary, target)
    except FileExistsError:
        raise OutputExistsError(
            f"{target} was made by another process meanwhile",
            hint="name another with -o, or replace it with --force",
        ) from None


def _publish_folder(temporary: Path, target: Path, force: bool) -> None:
    if not os.path.lexists(target) or not force:
        try:
            if not _renameat2(temporary, target, _RENAME_NOREPLACE):
                if os.path.lexists(target):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
                os.rename(temporary, target)
        except FileExistsError:
            raise OutputExistsError(
                f"{target} was made by another process meanwhile", hint="name another with -o, or use --force"
            ) from None
    elif target.is_symlink() or not target.is_dir():
        raise SanactlError(f"{target} is not a folder", hint="name a folder with -o")
    elif not _renameat2(temporary, target, _RENAME_EXCHANGE):
        aside = _temporary_name(target, "old")
        os.rename(target, aside)
        try:
            os.rename(temporary, target)
        except BaseException:
            os.rename(aside, target)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    """Linux's rename with flags (man 2 renameat2). False where the system or the file system has none."""
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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; a file system that cannot is no reason to fail a finished write."""
    with contextlib.suppress(OSError):
        _sync(folder)


@contextlib.contextmanager
def _explained(target: Path, only: set[int] | None = None) -> Iterator[None]:
    """Turn the operating system's errors about the output into one line; with `only`, just those error numbers."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (only is not None and error.errno not in only):
            raise
        raise SanactlError(
            f"cannot write {target}: {_reason(error, target.parent)}", hint=_hint(error)
        ) from error


def _reason(error: OSError, folder: Path) -> str:
    if error.errno == errno.EFBIG:
        return "the file grew past a limit on file sizes"
    if error.errno in _NO_SPACE:
        return f"no space left in {folder}"
    if error.errno == errno.EROFS:
        return f"{folder} is on a read-only file system"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no permission to write in {folder}"
    return os.strerror(error.errno or 0).lower()


def _hint(error: OSError) -> str:
    if error.errno == errno.EFBIG:
        return "raise the limit (ulimit -f), or write a folder of shards on this disk"
    if error.errno in _NO_SPACE:
        return "free some, or name another disk with -o"
    return "name another place with -o"
