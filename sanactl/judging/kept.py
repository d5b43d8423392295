"""The files of verdicts in a folder's memory, one judge's at a time.

They are in `.sanactl/verdicts/`, named `JUDGE.NUMBER.jsonl`. JUDGE is a digest of the judge's identity (weights, dtype,
dialogue...) and of sanactl's version.

A line holds the verdicts of a whole batch and its own checksum. It is appended in one write under a lock, so that several
runs can share a file. A line that a kill cut short, or that was damaged, is ignored: one batch is asked about again. The
batches of a run that goes on are those of an undisturbed run, since a batch is known as a whole or not at all. A verdict
is used to its last digit.
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
from sanactl.files.content import json_digest
from sanactl.files.regular import open_regular
from sanactl.judging.protocol import Judge
from sanactl.judging.tournament import Verdict
from sanactl.records.fields import FIELDS, LOGARITHM
from sanactl.records.jsonl import dump_json, parse_json
from sanactl.version import __version__

__all__ = ["FOLDER", "MAX_BYTES", "MAX_FILE", "KeptVerdicts", "bound"]

FOLDER = Path(".sanactl") / "verdicts"
# A verdict takes about 100 bytes: 2.5 million of all judges together. The files that were used least recently go first.
MAX_BYTES = 256 << 20
MAX_FILE = 32 << 20
_NAME = re.compile(r"(?P<judge>[0-9a-f]{16})\.(?P<number>[0-9]{4})\.jsonl")
_SUM = 16  # hexadecimal digits
_MASS = FIELDS["image"]["answer_mass"]


class KeptVerdicts:
    """The verdicts of one judge: those of earlier runs, and this run's.

    Args:
        place: the folder of the files; None where no file is written.
        judge: an opened judge.
        ask_again: do not use verdicts of earlier runs.
        tell: called with a line for the user, once, if verdicts cannot be kept.
    """

    def __init__(
        self, place: Path | None, judge: Judge, ask_again: bool, tell: Callable[[str], None]
    ) -> None:
        self._place, self._tell = place, tell
        self._reads: Sequence[str] | None = getattr(judge, "reads", None)
        self._judge = json_digest({"judge": judge.identity, "version": __version__})[:16]
        self._earlier: dict[bytes, tuple[Any, ...]] = {}
        self._new: dict[bytes, tuple[Any, ...]] = {}
        if place is not None and not ask_again:
            for path in self._files():
                with contextlib.suppress(OSError, InputError):
                    self._earlier.update(_read(path))
                    os.utime(path)

    def key(self, content: str, record: Mapping[str, Any]) -> bytes:
        """The key of the verdict on an image with this digest."""
        names = sorted(record) if self._reads is None else self._reads
        read = {name: record[name] for name in names if name in record and name != "path"}
        return bytes.fromhex(json_digest([content, read])[:32])

    def get(self, key: bytes) -> Verdict | None:
        values = self._new.get(key) or self._earlier.get(key)
        return None if values is None else Verdict(*values)

    def is_earlier(self, key: bytes) -> bool:
        return key not in self._new and key in self._earlier

    def put(self, verdicts: Sequence[tuple[bytes, Verdict]]) -> None:
        """Keeps the verdicts of a batch, in one write."""
        rows = {key: (v.verdict, v.yes_logprob, v.no_logprob, v.mass, v.details) for key, v in verdicts}
        self._new.update(rows)
        if self._place is None:
            return
        try:
            self._place.mkdir(parents=True, exist_ok=True)
            append_lines(self._file(), _line(rows))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            self._tell(f"verdicts cannot be kept for later runs ({self._place}: {reason})")
            self._place = None

    def _files(self) -> list[Path]:
        """This judge's files, oldest first."""
        assert self._place is not None
        return [path for path in _files(self._place) if path.name.startswith(f"{self._judge}.")]

    def _file(self) -> Path:
        """The file that takes the next line."""
        assert self._place is not None
        files = self._files()
        if files and files[-1].stat().st_size < MAX_FILE:
            return files[-1]
        number = int(files[-1].name.split(".")[1]) + 1 if files else 0
        return self._place / f"{self._judge}.{min(number, 9999):04d}.jsonl"


def _line(rows: Mapping[bytes, tuple[Any, ...]]) -> bytes:
    values = []
    for key, row in rows.items():
        while row[-1] is None:
            row = row[:-1]
        values.append([key.hex(), *row])
    text = dump_json(values).encode()
    return _checksum(text) + b" " + text + b"\n"


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:_SUM].encode()


def _read(path: Path) -> Iterator[tuple[bytes, tuple[Any, ...]]]:
    """The verdicts of a file, by key. Lines that are no batch of verdicts are passed over.

    Raises:
        InputError, OSError: it cannot be read.
    """
    # A batch may begin below the limit; anything much larger is no file of verdicts.
    with open_regular(path, most=4 * MAX_FILE) as stream:
        for line in stream:
            text = line[_SUM + 1 : -1]
            if not line.endswith(b"\n") or line[:_SUM] != _checksum(text):
                continue
            with contextlib.suppress(ValueError, TypeError):
                yield from [_row(row) for row in parse_json(text.decode())]


def _row(row: Any) -> tuple[bytes, tuple[Any, ...]]:
    """Raises ValueError or TypeError unless it is a key with a verdict."""
    key, verdict, yes, no, mass, details = [*row, None, None][:6]
    if verdict not in ("yes", "no") or not (LOGARITHM.fits(yes) and LOGARITHM.fits(no)):
        raise ValueError("no verdict")
    if not (mass is None or _MASS.fits(mass)) or not (details is None or isinstance(details, dict)):
        raise ValueError("no verdict")
    return bytes.fromhex(key), (verdict, yes, no, mass, details)


def _files(place: Path) -> list[Path]:
    """The files of verdicts in a folder, by name; none where it cannot be read."""
    with contextlib.suppress(OSError):
        return [place / name for name in sorted(os.listdir(place)) if _NAME.fullmatch(name)]
    return []


def bound(place: Path) -> None:
    """Removes the files that were used least recently, above `MAX_BYTES` in all. Another run may remove them, too."""
    found = []
    for path in _files(place):
        with contextlib.suppress(OSError):
            status = path.stat()
            found.append((status.st_mtime_ns, path, status.st_size))
    total = sum(size for *_, size in found)
    for _, path, size in sorted(found):
        if total <= MAX_BYTES:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size
