"""Files of rows in a folder's memory, each row found again by its key: verdicts of judges, answers of language models.

The files of a source are named `SOURCE.NUMBER.jsonl`. SOURCE is a digest of everything that its rows depend on beside
their keys.

A line holds several rows (a batch) and its own checksum. It is appended in one write under a lock, so that several runs
can share a file. A line that a kill cut short, or that was damaged, is ignored, with all of its rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.files.append import append_lines
from sanactl.files.regular import open_regular
from sanactl.records.jsonl import dump_json, parse_json

__all__ = ["MAX_FILE", "KeptRows", "bound_files"]

MAX_FILE = 32 << 20  # bytes; a new file is begun beyond
_NAME = re.compile(r"(?P<source>[0-9a-f]{16})\.(?P<number>[0-9]{4})\.jsonl")
_SUM = 16  # hexadecimal digits

Row = tuple[Any, ...]


class KeptRows:
    """The rows of one source: those of earlier runs, and this run's.

    Args:
        place: the folder of the files; None where no file is read or written.
        source: 16 hexadecimal digits.
        check: makes a row of what stands in a file; it raises ValueError or TypeError for what is none.
        ask_again: do not use rows of earlier runs.
    """

    def __init__(
        self, place: Path | None, source: str, check: Callable[[Sequence[Any]], Row], ask_again: bool
    ) -> None:
        self._place, self._source, self._check = place, source, check
        self._earlier: dict[bytes, Row] = {}
        self._new: dict[bytes, Row] = {}
        self._sizes: dict[Path, int] = {}  # bytes that have been read
        self._reads_others = not ask_again
        if place is not None and not ask_again:
            for path in self._files():
                with contextlib.suppress(OSError, InputError):
                    self._earlier.update(self._read(path))
                    os.utime(path)

    def refresh(self) -> None:
        """Reads what other runs have added meanwhile."""
        if self._place is None or not self._reads_others:
            return
        for path in self._files():
            with contextlib.suppress(OSError, InputError):
                if path.stat().st_size > self._sizes.get(path, 0):
                    self._earlier.update(self._read(path))

    def get(self, key: bytes) -> Row | None:
        """The row of a key, or None."""
        return self._new.get(key) or self._earlier.get(key)

    def is_earlier(self, key: bytes) -> bool:
        """Whether the row of a key is there and of an earlier run."""
        return key not in self._new and key in self._earlier

    def put(self, rows: Mapping[bytes, Row]) -> None:
        """Keeps rows, in one write.

        Raises:
            OSError: they cannot be written; they are kept for this run, and later ones are not written either.
        """
        self._new.update(rows)
        if self._place is None:
            return
        try:
            self._place.mkdir(parents=True, exist_ok=True)
            append_lines(self._file(), _line(rows))
        except OSError:
            self._place = None
            raise

    def _files(self) -> list[Path]:
        """This source's files, oldest first."""
        assert self._place is not None
        return [path for path in _files(self._place) if path.name.startswith(f"{self._source}.")]

    def _file(self) -> Path:
        """The file that takes the next line."""
        assert self._place is not None
        files = self._files()
        if files and files[-1].stat().st_size < MAX_FILE:
            return files[-1]
        number = int(files[-1].name.split(".")[1]) + 1 if files else 0
        return self._place / f"{self._source}.{min(number, 9999):04d}.jsonl"

    def _read(self, path: Path) -> Iterator[tuple[bytes, Row]]:
        """The rows of a file that have not been read, by key. Lines that are no rows are passed over.

        Raises:
            InputError, OSError: it cannot be read.
        """
        # A line may begin below the limit; anything much larger is no file of rows.
        with open_regular(path, most=4 * MAX_FILE) as stream:
            stream.seek(self._sizes.get(path, 0))
            for line in stream:
                if not line.endswith(b"\n"):
                    return  # another run may be writing it
                self._sizes[path] = self._sizes.get(path, 0) + len(line)
                text = line[_SUM + 1 : -1]
                if line[:_SUM] != _checksum(text):
                    continue
                with contextlib.suppress(ValueError, TypeError):
                    rows = [(bytes.fromhex(key), self._check(row)) for key, *row in parse_json(text.decode())]
                    yield from rows


def _line(rows: Mapping[bytes, Row]) -> bytes:
    values = []
    for key, row in rows.items():
        while row and row[-1] is None:
            row = row[:-1]
        values.append([key.hex(), *row])
    text = dump_json(values).encode()
    return _checksum(text) + b" " + text + b"\n"


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:_SUM].encode()


def _files(place: Path) -> list[Path]:
    """The files of rows in a folder, by name; none where it cannot be read."""
    with contextlib.suppress(OSError):
        return [place / name for name in sorted(os.listdir(place)) if _NAME.fullmatch(name)]
    return []


def bound_files(place: Path, most: int) -> None:
    """Removes the files that were used least recently, above `most` bytes in all. Another run may remove them, too."""
    found = []
    for path in _files(place):
        with contextlib.suppress(OSError):
            status = path.stat()
            found.append((status.st_mtime_ns, path, status.st_size))
    total = sum(size for *_, size in found)
    for _, path, size in sorted(found):
        if total <= most:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size
