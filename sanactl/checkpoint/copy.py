"""Copying bytes from file to file, inside the kernel or through a small buffer."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from sanactl.checkpoint.plan import Bytes
from sanactl.checkpoint.table import Stamp
from sanactl.errors import InputError, SanactlError

__all__ = ["Sources", "copy_folder", "copy_span", "pwrite_all"]

_CHUNK = 32 << 20  # bytes for each system call; interrupts and progress are handled between two calls
_BUFFER = 1 << 20  # bytes; the buffer of the slowest method
_position = threading.Lock()  # sendfile writes at the descriptor's position, which all threads share
_UNSUPPORTED = {
    errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF, errno.ETXTBSY, errno.ENOTSOCK,
    getattr(errno, "ENOTSUP", errno.EOPNOTSUPP),
}  # fmt: skip
_FAILED = {errno.EIO, getattr(errno, "ESTALE", errno.EIO)}


class Sources:
    """The source files of a write. Each is opened once and compared with its state when the plan was made.

    Replacing a file after it was opened does no harm, because the open descriptor keeps the old bytes. A change in place
    is detected at the end of the write.
    """

    def __init__(self, expected: Mapping[Path, Stamp]) -> None:
        self._expected = expected
        self._open: dict[Path, int] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def descriptor(self, file: Path) -> int:
        """An open file descriptor of `file`.

        Raises:
            InputError: the file is missing, or is not the one of the plan.
        """
        with self._lock:
            if file not in self._open:
                try:
                    self._open[file] = os.open(file, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
                except OSError as error:
                    raise InputError(f"cannot read {file}: {os.strerror(error.errno or 0)}") from error
                self._check(file)
            return self._open[file]

    def check(self) -> None:
        """Raise InputError if a source was written to while it was being read."""
        for file in self._open:
            self._check(file)

    def _check(self, file: Path) -> None:
        if Stamp.of(os.fstat(self._open[file])) != self._expected.get(file):
            raise InputError(f"{file} changed while it was being read", hint="run the command again")

    def read(self, file: Path, offset: int, count: int) -> bytes:
        """Exactly `count` bytes of `file` from `offset`.

        Raises:
            InputError: they cannot be read.
        """
        parts = []
        while count:
            part = self.read_some(file, offset, count)
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_some(self, file: Path, offset: int, most: int) -> bytes:
        """One to `most` bytes of `file` from `offset`.

        Raises:
            InputError: they cannot be read, or the file ends before them.
        """
        descriptor = self.descriptor(file)
        with _readable(file):
            data = os.pread(descriptor, most, offset)
        if not data:
            raise _ended_early(file, offset)
        return data

    def read_into(self, file: Path, offset: int, out: memoryview) -> None:
        """Fill `out` with the bytes of `file` from `offset`.

        Raises:
            InputError: they cannot be read.
        """
        descriptor = self.descriptor(file)
        while out:
            with _readable(file):
                done = os.preadv(descriptor, [out], offset)
            if not done:
                raise _ended_early(file, offset)
            out, offset = out[done:], offset + done

    def read_joined(self, spans: Bytes, start: int, count: int) -> bytes:
        """`count` bytes from byte `start` of the concatenation of these spans."""
        parts = []
        for ref in spans.refs:
            inside = max(0, min(count, ref.nbytes - start)) if start < ref.nbytes else 0
            if inside:
                parts.append(self.read(ref.file, ref.offset + start, inside))
                start, count = start + inside, count - inside
            start -= ref.nbytes
        assert count == 0, spans
        return parts[0] if len(parts) == 1 else b"".join(parts)


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot read {file}: {os.strerror(error.errno or 0)}") from error


def _ended_early(file: Path, at: int) -> InputError:
    return InputError(f"{file} ended early, at byte {at:,}", hint="it changed while it was being read")


def copy_span(sources: Sources, file: Path, offset: int, target: int, at: int, count: int) -> Iterator[int]:
    """Copy `count` bytes of `file` from `offset` to byte `at` of the descriptor `target`; yields the size of each part.

    The methods are copy_file_range (it shares blocks where the file system can), else sendfile, else read and write. Only
    the last one holds data in this process, 1 MiB at a time.

    Raises:
        InputError: the source cannot be read, or ends early.
        SanactlError: one of the two disks failed.
        OSError: the target cannot be written.
    """
    source, done = sources.descriptor(file), 0
    for method in (_by_copy_file_range, _by_sendfile):
        while done < count:
            try:
                part = method(source, target, offset + done, at + done, min(_CHUNK, count - done))
            except OSError as error:
                if error.errno in _UNSUPPORTED:
                    break
                if error.errno in _FAILED:
                    raise SanactlError(
                        f"a disk failed while {file} was copied: {error.strerror}", hint="check both disks"
                    ) from error
                raise
            if part == 0:
                break  # some file systems return 0 if they cannot copy; only a read shows the real end
            done += part
            yield part
    while done < count:
        data = sources.read_some(file, offset + done, min(_BUFFER, count - done))
        pwrite_all(target, data, at + done)
        done += len(data)
        yield len(data)


def _by_copy_file_range(source: int, target: int, offset: int, at: int, count: int) -> int:
    if not hasattr(os, "copy_file_range"):
        raise OSError(errno.ENOSYS, "no copy_file_range")
    return os.copy_file_range(source, target, count, offset, at)


def _by_sendfile(source: int, target: int, offset: int, at: int, count: int) -> int:
    if not hasattr(os, "sendfile"):
        raise OSError(errno.ENOSYS, "no sendfile")
    with _position:
        os.lseek(target, at, os.SEEK_SET)
        return os.sendfile(target, source, offset, count)


def copy_folder(source: Path, target: Path, depth: int = 8) -> None:
    """Copy a folder's files into the new folder `target`: their contents, with the permissions of new files.

    Symbolic links are followed, at most `depth` folders deep.

    Raises:
        InputError: a file cannot be read, changed while it was being read, or is not a regular file.
    """
    if not depth:
        raise InputError(f"{source} has too many levels to be copied", hint="do its links form a circle?")
    target.mkdir()
    for name in sorted(os.listdir(source)):
        file = source / name
        if file.is_dir():
            copy_folder(file, target / name, depth - 1)
            continue
        with _readable(file):
            found = os.stat(file)
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{file} is not a regular file")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        with contextlib.closing(Sources({file: Stamp.of(found)})) as sources:
            descriptor = os.open(target / name, flags, 0o666)
            try:
                for _ in copy_span(sources, file, 0, descriptor, 0, found.st_size):
                    pass
            finally:
                os.close(descriptor)
            sources.check()


def pwrite_all(target: int, data: bytes | memoryview, at: int) -> None:
    """Write all of `data` at byte `at`."""
    view = memoryview(data)
    while view:
        done = os.pwrite(target, view, at)
        view, at = view[done:], at + done
