"""Results that a long command saves one by one, so that a later run can continue where it stopped.

They are in a hidden file `.COMMAND.IDENTITY.partial` beside the output, one line for each result: the key of its subject
(an image, for example), and the result as JSON. IDENTITY is a digest of everything that all results depend on (a judge's
weights, the version). The same command reads the file and computes only the missing results. It removes the file when
the output is written. A line that a kill cut short is skipped.

Each process writes its own file and keeps it locked. Files of stopped runs are only read. A file is removed when all its
results have been used, or a week after its last line.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sanactl.files.append import append_to, try_lock
from sanactl.files.content import json_digest
from sanactl.records.jsonl import MAX_LINE, dump_json, parse_json

__all__ = ["Partial", "image_key"]

_NAME = re.compile(r"(?P<stem>\.[a-z0-9-]+\.[0-9a-f]{16})(-[0-9]+)?\.partial")
_KEY = re.compile(rb"[0-9a-f]{32} ")
_OLD = 7 * 24 * 3600.0  # seconds
_MOST_FILES = 10_000
_FLAGS = os.O_APPEND | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)


def image_key(record: Mapping[str, Any]) -> str | None:
    """The key of a result about an image record: a digest of the record and of the file's state; None without a file.

    The state is inode, size and times, so a new image at the same path gets a new result.
    """
    try:
        found = os.stat(record["path"])
    except (OSError, ValueError):
        return None
    known = [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
    return json_digest([record, known])[:32]


class Partial:
    """The results so far of one command with one identity, in one folder.

    No method raises if results cannot be saved: then they are not saved, and the command continues.

    Args:
        folder: where the output will be.
        command: a short name in lower case.
        identity: everything that all results depend on; JSON values.
        tell: called with a line for the user if results cannot be saved.
    """

    def __init__(
        self,
        folder: Path,
        command: str,
        identity: Mapping[str, Any],
        *,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        digest = json_digest(identity)
        self._folder, self._stem, self._tell = folder, f".{command}.{digest[:16]}", tell
        self._earlier: list[_Earlier] = []
        self._own: tuple[Path, int] | None = None
        self._keeps = True
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(folder)):
                match = _NAME.fullmatch(name)
                if match is not None:
                    self._meet(folder / name, mine=match["stem"] == self._stem)

    def _meet(self, path: Path, *, mine: bool) -> None:
        """Index a file of an earlier run with this identity; remove any other file that is old."""
        with contextlib.suppress(OSError):
            file = _Earlier(path)
            if mine:
                file.index()
                self._earlier.append(file)
                return
            if time.time() - os.fstat(file.descriptor).st_mtime > _OLD:
                file.remove()
            file.close()

    def get(self, key: str | None) -> dict[str, Any] | None:
        """The result that an earlier run saved for a key; None if there is none."""
        if key is None:
            return None
        # All of them: a file whose results two jobs have computed is used up, too.
        found = [file.read(key) for file in self._earlier]
        return next((result for result in found if result is not None), None)

    def put(self, results: Iterable[tuple[str | None, Mapping[str, Any]]]) -> None:
        """Save results in one write; results without a key are not saved."""
        lines = [f"{key} {dump_json(value)}\n" for key, value in results if key is not None]
        if not self._keeps or not lines:
            return
        try:
            if self._own is None:
                self._own = self._new_file()
            append_to(self._own[1], "".join(lines).encode(), locked=True)
        except OSError as error:
            self._keeps = False
            reason = (error.strerror or str(error)).lower()
            self._tell(f"results cannot be kept for a later run ({self._folder}: {reason})")

    def _new_file(self) -> tuple[Path, int]:
        """A new file of this process, locked."""
        for number in range(1, _MOST_FILES):
            path = self._folder / f"{self._stem}{f'-{number}' if number > 1 else ''}.partial"
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o666)
                try_lock(descriptor)
                return path, descriptor
        raise OSError(f"{_MOST_FILES} files of stopped runs are there already")

    def done(self) -> None:
        """The output is written: remove this run's file, and earlier files whose results have all been used."""
        if self._own is not None:
            with contextlib.suppress(OSError):
                self._own[0].unlink()
        for file in self._earlier:
            if file.all_used:
                file.remove()
        self.close()

    def close(self) -> None:
        """Close the files and leave them for a later run."""
        for file in self._earlier:
            file.close()
        if self._own is not None:
            os.close(self._own[1])
        self._earlier, self._own, self._keeps = [], None, False


class _Earlier:
    """A file of results of an earlier run.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDWR | _FLAGS)
        self._places: dict[bytes, tuple[int, int]] = {}  # key to offset and size of the result
        self._used: set[bytes] = set()
        self._size = 0
        if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
            os.close(self.descriptor)
            raise OSError("not a regular file")

    def index(self) -> None:
        """Find the place of each result in the file; the results are not kept in memory.

        Raises:
            OSError: it cannot be read.
        """
        with open(self.descriptor, "rb", closefd=False) as stream:
            while line := stream.readline(MAX_LINE):
                if line.endswith(b"\n") and _KEY.match(line):
                    self._places[line[:32]] = (self._size + 33, len(line) - 34)
                self._size += len(line)

    def read(self, key: str) -> dict[str, Any] | None:
        """The result for a key; None if there is none."""
        place = self._places.get(key.encode())
        if place is None:
            return None
        try:
            found = parse_json(os.pread(self.descriptor, place[1], place[0]).decode())
        except (OSError, ValueError):
            return None
        self._used.add(key.encode())
        return found if isinstance(found, dict) else None

    @property
    def all_used(self) -> bool:
        """Whether each of its results has been read, and none was added since."""
        whole = os.fstat(self.descriptor).st_size == self._size
        return whole and self._used == self._places.keys()

    def remove(self) -> None:
        """Remove the file, unless the process that writes it is still running."""
        if try_lock(self.descriptor) is not False:
            with contextlib.suppress(OSError):
                self.path.unlink()

    def close(self) -> None:
        os.close(self.descriptor)
