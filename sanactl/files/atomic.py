"""All-or-nothing writes: a temporary file beside the target, flushed, then renamed.

A reader never sees half a file. A killed process leaves at most a hidden temporary file. The next write into the same
folder removes it (`sanactl.files.temporaries`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from sanactl.errors import OutputExistsError, SanactlError, UsageError
from sanactl.files.linux import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2, syncfs
from sanactl.files.temporaries import make_file, make_folder, reclaim, set_aside

__all__ = ["atomic_dir", "atomic_path", "check_target", "scratch_folder", "write_files"]

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# errors that concern the target, whichever call raises them
_TARGETS = _NO_SPACE | {errno.EROFS, errno.EIO, errno.ESTALE}
# errors of file systems without permissions (FAT, CIFS) or without flushing (some network and object stores)
_REFUSED = {errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOTTY}
# Files in a folder, from which on one flush of the file system is faster than one of each file: those take 1 to 30 ms each.
_MANY = 100


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str], force: bool = False) -> Iterator[Path]:
    """Write a file all at once: yield a temporary path beside `target` and rename it when the body has ended.

    Args:
        target: the file to make. A symbolic link is replaced; the file that it points to is not written.
        force: replace what is there.

    Yields:
        an existing, empty file in the target's folder, with the permissions of a new file.

    Raises:
        OutputExistsError: the target exists (checked before the body and again, atomically, after it).
        SanactlError: no such folder, no permission, read-only or full disk.
    """
    target = Path(target)
    check_target(target, force)
    with _explained(target):
        temporary = make_file(target)
    try:
        with _explained(target, only=_TARGETS):
            yield temporary.path
        with _explained(target):
            # a library may have replaced the file with a new one that only its owner can read
            _permit(temporary.path, temporary.mode)
            _sync(temporary.path)
            _publish(temporary.path, target, force)
    finally:
        temporary.remove()
    _sync_folder(target.parent)


@contextlib.contextmanager
def atomic_dir(target: str | os.PathLike[str], force: bool = False) -> Iterator[Path]:
    """Like `atomic_path` for a folder: yields an empty temporary folder that becomes `target`.

    With `force`, Linux exchanges the old folder and the new one in one step. Other systems need two renames: the old
    folder is set aside first, and if the process dies between the two, the next write puts it back.
    """
    target = Path(target)
    check_target(target, force)
    with _explained(target):
        temporary = make_folder(target)
    try:
        with _explained(target, only=_TARGETS):
            yield temporary.path
        with _explained(target):
            _sync_all(temporary.path)
            _publish_folder(temporary.path, target, force)
    finally:
        temporary.remove()
    _sync_folder(target.parent)


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write small files, each whole or not at all, with one flush for all of them; files of these names are replaced.

    Where it fails, some of them may be there. A flush of the disk takes 1 to 30 ms, and `atomic_path` needs two.

    Raises:
        SanactlError: as `atomic_path`; names the file.
    """
    with contextlib.ExitStack() as stack:
        made: dict[Path, Path] = {}
        for target, data in contents.items():
            check_target(target, force=True)
            with _explained(target):
                temporary = make_file(target)
                stack.callback(temporary.remove)
                temporary.path.write_bytes(data)
            made[target] = temporary.path
        _sync_each(list(made.values()), next(iter(made), Path()))
        for target, path in made.items():
            with _explained(target):
                _publish(path, target, force=True)
    with contextlib.suppress(SanactlError):  # as in `_sync_folder`
        folders = list(dict.fromkeys(target.parent for target in made))
        _sync_each(folders, Path())


def _sync_each(paths: list[Path], target: Path) -> None:
    """Flush files or folders of one disk; errors are of `target`."""
    with _explained(target):
        if len(paths) > 1 and syncfs(paths[0]):
            return
        for path in paths:
            _sync(path)


@contextlib.contextmanager
def scratch_folder(name: str | os.PathLike[str]) -> Iterator[Path]:
    """A hidden folder beside `name` that exists while the body runs. After a kill, the next write there removes it.

    Raises:
        SanactlError: it cannot be made.
    """
    name = Path(name)
    with _explained(name):
        _check_folder(name)
        reclaim(name.parent)
        folder = make_folder(name)
    try:
        yield folder.path
    finally:
        folder.remove()


def check_target(target: str | os.PathLike[str], force: bool = False) -> None:
    """Check early what `atomic_path` would refuse at the end, and remove the temporary files of dead processes.

    Raises:
        OutputExistsError: the target exists and `force` is false.
        SanactlError: the target's folder is missing or is not a folder.
    """
    target = Path(target)
    if target.name in ("", ".", ".."):
        raise UsageError(f"{target} is not a name for an output", hint="name a file with -o")
    with _explained(target):
        _check_folder(target)
    if os.path.lexists(target) and not force:
        raise OutputExistsError(
            f"{target} already exists", hint="name another with -o, or replace it with --force"
        )
    reclaim(target.parent)


def _check_folder(target: Path) -> None:
    """Raise SanactlError or OSError if the target cannot be made in its folder or under its name."""
    folder = target.parent
    try:
        is_folder = stat.S_ISDIR(os.stat(folder).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise SanactlError(
            f"cannot write {target}: {folder} does not exist", hint=f"mkdir -p {folder}"
        ) from None
    if not is_folder:
        raise SanactlError(
            f"cannot write {target}: {folder} is not a folder", hint="name another place with -o"
        )
    with contextlib.suppress(FileNotFoundError):
        os.lstat(target)  # a name that is too long fails here
    if not os.access(folder, os.W_OK | os.X_OK):
        read_only = hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY
        code = errno.EROFS if read_only else errno.EACCES
        raise OSError(code, os.strerror(code))


def _publish(temporary: Path, target: Path, force: bool) -> None:
    """Give the finished file its name; without `force` a file that already has this name is never replaced."""
    if force:
        if target.is_dir() and not target.is_symlink():
            raise SanactlError(f"{target} is a folder", hint="name a file with -o")
        os.replace(temporary, target)
        return
    try:
        if renameat2(temporary, target, RENAME_NOREPLACE):
            return
        try:
            os.link(temporary, target)
        except FileExistsError:
            raise
        except (
            OSError
        ):  # no hard links here (FAT, some network disks): only the check before the body protects the target
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
            if not renameat2(temporary, target, RENAME_NOREPLACE):
                if os.path.lexists(target):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
                os.rename(temporary, target)
        except FileExistsError:
            raise OutputExistsError(
                f"{target} was made by another process meanwhile", hint="name another with -o, or use --force"
            ) from None
    elif target.is_symlink() or not target.is_dir():
        raise SanactlError(f"{target} is not a folder", hint="name a folder with -o")
    elif not renameat2(temporary, target, RENAME_EXCHANGE):
        aside = set_aside(target)
        try:
            os.rename(temporary, target)
        except BaseException:
            os.rename(aside.path, target)
            raise
        finally:
            aside.remove()


def _permit(path: Path, mode: int) -> None:
    """Give a file these permissions, unless its file system has no permissions."""
    try:
        if path.stat().st_mode & 0o777 != mode & 0o777:
            path.chmod(mode & 0o777)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise


def _sync(path: Path) -> None:
    """Flush a file or folder to its disk, unless its file system cannot.

    Raises:
        OSError: the disk is full or fails.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
    finally:
        os.close(descriptor)


def _sync_all(folder: Path) -> None:
    """Flush a folder and everything in it.

    Raises:
        OSError: the disk is full or fails.
    """
    paths = [*sorted(folder.rglob("*")), folder]
    if len(paths) > _MANY and syncfs(folder):
        return
    for path in paths:
        if not path.is_symlink() and (path.is_dir() or path.is_file()):
            _sync(path)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; if that fails, the write still counts as finished."""
    with contextlib.suppress(OSError):
        _sync(folder)


@contextlib.contextmanager
def _explained(target: Path, only: set[int] | None = None) -> Iterator[None]:
    """Turn the operating system's errors about the output into one line; with `only`, only these error numbers."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (only is not None and error.errno not in only):
            raise
        raise SanactlError(
            f"cannot write {target}: {_reason(error, target.parent)}", hint=_hint(error, target)
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
    if error.errno == errno.ENOENT:
        return "another program removed its unfinished file"
    return os.strerror(error.errno or 0).lower()


def _hint(error: OSError, target: Path) -> str:
    if error.errno == errno.EFBIG:
        sharded = "; grow, prune and convert can also write a folder of shards"
        return f"raise the limit (ulimit -f){sharded if target.suffix in ('.st', '.safetensors') else ''}"
    if error.errno in _NO_SPACE:
        return "free some, or name another disk with -o"
    if error.errno in (errno.EIO, errno.ESTALE):
        return "check the disk, or name another with -o"
    return "name another place with -o"
