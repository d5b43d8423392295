"""A judge with its verdicts so far, so that no judge is asked twice about an image and its prompt.

The key of a verdict is a digest of the image's file and of the fields of the record that the verdict depends on. So
neither the image's path nor the command's output, `--keep` or list of prompts matter. `sanactl.judging.kept` has the files.

The image's content is the digest of its file's bytes and not of its pixels, so that a run that is started again does not
decode what it knows: the digest of a PNG of 1024 x 1024 pixels took 1 ms, decoding it 100 ms. A copy has the same bytes.
An image that was saved anew in another format is asked about again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sanactl.errors import InputError
from sanactl.files.images import image_bytes, read_image
from sanactl.judging.check import check_verdicts
from sanactl.judging.kept import FOLDER, KeptVerdicts, bound
from sanactl.judging.protocol import Judge
from sanactl.judging.tournament import Verdict
from sanactl.records.prompts import as_meant

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Question", "VerdictCache", "parts"]

Item = TypeVar("Item")


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
        self._kept = [KeptVerdicts(place, j, ask_again, tell) for j in self._judges]
        if place is not None:
            bound(place)

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
        # The judge reads the prompt before it was translated or rewritten: that is what the image must show.
        record = as_meant(record)
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


def parts(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """The items in parts of `size`; the last may be smaller."""
    return [items[first : first + size] for first in range(0, len(items), size)]
