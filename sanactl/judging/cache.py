"""Verdicts that are kept in the folder's memory, so that no judge is asked twice about an image and its prompt.

They are in `.sanactl/verdicts/`, in files `JUDGE.NUMBER.jsonl`. JUDGE is a digest of the judge's identity (weights, dtype,
dialogue...) and of sanactl's version. The key of a verdict is a digest of the image's file and of the fields of the record
that the verdict depends on. So neither the image's path nor the command's output, `--keep` or list of prompts matter.

The image's content is the digest of its file's bytes and not of its pixels, so that a run that is started again does not
decode what it knows: the digest of a PNG of 1024 x 1024 pixels took 1 ms, decoding it 100 ms. A copy has the same bytes.
An image that was saved anew in another format is asked about again.

A line holds the verdicts of a whole batch and its own checksum. It is appended in one write under a lock, so that several
runs can share a file. A line that a kill cut short, or that was damaged, is ignored: one batch is asked about again. The
batches of a run that goes on are those of an undisturbed run, since a batch is known as a whole or not at all. A verdict
is used to its last digit.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sanactl.errors import InputError
from sanactl.files.append import append_lines
from sanactl.files.content import json_digest
from sanactl.files.images import image_bytes, read_image
from sanactl.files.regular import open_regular
from sanactl.judging.check import check_verdicts
from sanactl.judging.protocol import Judge
from sanactl.judging.tournament import Verdict
from sanactl.records.fields import FIELDS, LOGARITHM
from sanactl.records.jsonl import dump_json, parse_json
from sanactl.version import __version__

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MAX_BYTES", "MAX_FILE", "Question", "VerdictCache", "parts"]

Item = TypeVar("Item")

FOLDER = Path(".sanactl") / "verdicts"
# A verdict takes about 100 bytes: 2.5 million of all judges together. The files that were used least recently go first.
MAX_BYTES = 256 << 20
MAX_FILE = 32 << 20
_NAME = re.compile(r"(?P<judge>[0-9a-f]{16})\.(?P<number>[0-9]{4})\.jsonl")
_SUM = 16  # hexadecimal digits
_MASS = FIELDS["image"]["answer_mass"]


@dataclass(frozen=True)
class Question:
    """An image with what a judge is asked about it.

    Attributes:
        record: the image's record.
        keys: the key of its verdict, for each judge.
        data: the bytes of its file; None where they are read again.
    """

    record: dict[str, Any]
    keys: tuple[bytes, ...]
    data: bytes | None = None


class VerdictCache:
    """A judge together with its verdicts so far. Of several judges as one, each one's verdicts are kept.

    Args:
        folder: verdicts are in its `.sanactl/verdicts/`. None: they are kept for the life of this object.
        judge: an opened judge.
        ask_again: do not use verdicts of earlier runs. The new ones take their place.
        tell: called with a line for the user, once, if verdicts cannot be kept.

    Attributes:
        judge: as given.
        keeps: whether verdicts outlast this object.
    """

    def __init__(
        self,
        folder: Path | None,
        judge: Judge,
        *,
        ask_again: bool = False,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.judge, self.keeps = judge, folder is not None
        self._judges: Sequence[Judge] = getattr(judge, "judges", None) or [judge]
        place = None if folder is None else folder / FOLDER
        self._kept = [_Kept(place, j, ask_again, tell) for j in self._judges]
        if place is not None:
            _bound(place)

    def question(self, record: dict[str, Any], *, hold: bool = True) -> Question:
        """Reads an image's file.

        Args:
            record: an image's, with `path` and what the judge reads.
            hold: whether to hold the bytes until the judge is asked.

        Raises:
            InputError: the file is missing, empty, too large or not a regular file.
        """
        data = image_bytes(Path(record["path"]))
        return self._question(record, data, hold)

    def _question(self, record: dict[str, Any], data: bytes, hold: bool) -> Question:
        content = hashlib.sha256(data).hexdigest()
        return Question(
            record, tuple(kept.key(content, record) for kept in self._kept), data if hold else None
        )

    def known(self, keys: Sequence[bytes]) -> Verdict | None:
        """The verdict, if each judge has been asked."""
        found = [kept.get(key) for kept, key in zip(self._kept, keys, strict=True)]
        verdicts = [v for v in found if v is not None]
        return self._one(verdicts) if len(verdicts) == len(found) else None

    def is_earlier(self, keys: Sequence[bytes]) -> bool:
        """Whether a verdict that is known is of an earlier run."""
        return all(kept.is_earlier(key) for kept, key in zip(self._kept, keys, strict=True))

    @property
    def at_once(self) -> int:
        """How many batches `ask_all` is best given."""
        return 1

    def ask_all(self, batches: Sequence[Sequence[Question]]) -> list[list[Verdict]]:
        """`ask` for each batch."""
        return [self.ask(batch) for batch in batches]

    def ask(
        self, batch: Sequence[Question], images: Sequence[NDArray[np.uint8]] | None = None
    ) -> list[Verdict]:
        """Asks each judge about the images of a batch that it has not been asked about, and keeps its verdicts.

        Args:
            batch: each with other keys.
            images: the decoded images, uint8 [height, width, 3] RGB; by default the files are decoded.

        Raises:
            InputError: an image cannot be decoded, a judge cannot take one, or it gives NaN. Nothing of the batch is kept.
        """
        missing = self.missing(batch)
        self.keep(batch, missing, self.answers(batch, missing, images))
        return self.verdicts_of(batch)

    def missing(self, batch: Sequence[Question]) -> list[list[int]]:
        """For each judge the places in the batch that it has not been asked about."""
        return [
            [place for place, question in enumerate(batch) if kept.get(question.keys[number]) is None]
            for number, kept in enumerate(self._kept)
        ]

    def answers(
        self,
        batch: Sequence[Question],
        missing: Sequence[Sequence[int]],
        images: Sequence[NDArray[np.uint8]] | None = None,
    ) -> list[list[Verdict]]:
        """Each judge's verdicts on the places in the batch that `missing` says. Nothing is kept."""
        if images is None:
            images = [self._decoded(question) for question in batch]
        found: list[list[Verdict]] = []
        for judge, places in zip(self._judges, missing, strict=False):
            records = [batch[i].record for i in places]
            verdicts = judge.judge([images[i] for i in places], records) if records else []
            check_verdicts(judge.name, verdicts, records)
            found.append(verdicts)
        return found

    def keep(
        self,
        batch: Sequence[Question],
        missing: Sequence[Sequence[int]],
        answers: Sequence[Sequence[Verdict]],
    ) -> None:
        """Keeps what `answers` found."""
        for number, (kept, places, verdicts) in enumerate(zip(self._kept, missing, answers, strict=True)):
            if places:
                kept.put([(batch[i].keys[number], v) for i, v in zip(places, verdicts, strict=True)])

    def verdicts_of(self, batch: Sequence[Question]) -> list[Verdict]:
        """The verdicts, which are known."""
        found = [v for q in batch if (v := self.known(q.keys)) is not None]
        assert len(found) == len(batch)
        return found

    def verdicts(
        self,
        records: Sequence[dict[str, Any]],
        images: Sequence[NDArray[np.uint8]] | None = None,
        *,
        batch_size: int = 32,
    ) -> list[Verdict]:
        """The verdicts on several images. The judge is asked about those that are not known, in full batches.

        Args:
            records: image records with `path`; the files are there.
            images: the decoded images, where the caller has them.
            batch_size: images that the judge is asked about at once.

        Raises:
            InputError: as of `question` and `ask`.
        """
        questions = [self.question(record, hold=False) for record in records]
        unknown: dict[tuple[bytes, ...], int] = {}
        for place, question in enumerate(questions):
            if self.known(question.keys) is None:
                unknown.setdefault(question.keys, place)
        for places in parts(list(unknown.values()), batch_size):
            given = None if images is None else [images[place] for place in places]
            self.ask([questions[place] for place in places], given)
        return self.verdicts_of(questions)

    def _decoded(self, question: Question) -> NDArray[np.uint8]:
        path = Path(question.record["path"])
        data = question.data
        if data is None:
            data = image_bytes(path)
            if self._question(question.record, data, False).keys != question.keys:
                raise InputError(f"{path}: this image changed while it was to be judged", hint="start again")
        return read_image(io.BytesIO(data), name=str(path))

    def _one(self, verdicts: Sequence[Verdict]) -> Verdict:
        combine = getattr(self.judge, "combine", None)
        return combine(verdicts) if combine is not None else verdicts[0]


class _Kept:
    """The verdicts of one judge: those of earlier runs, and this run's."""

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


def _bound(place: Path) -> None:
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


def parts(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """The items in parts of `size`; the last may be smaller."""
    return [items[first : first + size] for first in range(0, len(items), size)]
