"""Questions about images asked once: kept answers are taken, others asked for and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError
from sanactl.records.partial import Partial, image_key
from sanactl.records.records import Record
from sanactl.scoring.questions.kept_answers import Box, KeptAnswers, Known, from_lines, to_line
from sanactl.scoring.questions.protocol import Answerer, Asked, rounded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Asking"]

Pixels = Callable[[], "NDArray[np.uint8]"]


@dataclass
class Asking:
    """Asks one VQA model.

    Attributes:
        answerer: who is asked.
        batch_size: questions at once.
        file: answers that are taken before any question is asked; new ones are added. None for none.
        kept: where there is no file, answers of an earlier run that was stopped; new ones are added.
        taken: answers so far that the file or an earlier run had.
    """

    answerer: Answerer
    batch_size: int
    file: KeptAnswers | None = None
    kept: Partial | None = None
    taken: int = 0

    def answers(
        self, record: Record, part: Box | None, asked: Sequence[Asked], pixels: Pixels, place: int = 0
    ) -> list[tuple[float, ...]]:
        """The probabilities of each question's answers, see `Answerer.answer`; six digits of each.

        Questions are asked in batches of one image. A batch is asked again unless all of its answers are kept, so that
        the same questions and batch size give the same answers, also after a stop.

        Args:
            record: the image's.
            part: which part of the image it is about; None for the whole.
            asked: the questions.
            pixels: gives the part's pixels, when they are needed.
            place: of the part in its grid, from 0; answers that were recorded elsewhere are found by it.

        Raises:
            KeyError: answers were recorded elsewhere, and not all that are asked for.
            InputError: the image cannot be read, or the model cannot answer.
        """
        path = Path(record["path"])
        found: list[tuple[float, ...]]
        recorded = getattr(self.answerer, "recorded", None)
        if recorded is not None and part is not None:
            found = recorded(path.name.split(".")[0], place, asked)
            self.taken += len(found)
            return found
        key = None
        known: Known = {}
        if self.file is not None:
            known = self.file.get(path, part)
        elif self.kept is not None:
            key = image_key({**record, "part": part, "asked": [a.text for a in asked]})
            known = _of_run(self.kept.get(key))
        found = []
        image = None
        for first in range(0, len(asked), self.batch_size):
            batch = asked[first : first + self.batch_size]
            if (had := _had(known, batch)) is not None:
                self.taken += len(batch)
                found += had
                continue
            image = pixels() if image is None else image
            new = self._ask(path, image, batch)
            if self.file is not None:
                self.file.put(path, part, batch, new)
            found += new
        if image is not None and self.kept is not None and self.file is None:
            self.kept.put([(key, to_line(asked, found))])
        return found

    def _ask(self, path: Path, image: NDArray[np.uint8], batch: Sequence[Asked]) -> list[tuple[float, ...]]:
        try:
            answers = self.answerer.answer(image, batch)
        except InputError as error:
            raise InputError(f"{path}: {error.message}", hint=error.hint) from None
        found = [tuple(rounded(p) for p in each) for each in answers]
        for one, probabilities in zip(batch, found, strict=True):
            if not all(0 <= p <= 1 for p in probabilities):
                raise InputError(
                    f"{path}: {self.answerer.label} gives no probability for {one.question[:60]!r}"
                    f" ({', '.join(map(str, probabilities))})",
                    hint="run it in float32, or take another model",
                )
        return found


def _had(known: Known, batch: Sequence[Asked]) -> list[tuple[float, ...]] | None:
    """The answers of a whole batch, if all are known."""
    found = []
    for one in batch:
        answers: dict[str, Any] = known.get((one.question, one.instruction), {})
        if any(a not in answers for a in one.answers):
            return None
        found.append(tuple(float(answers[a]) for a in one.answers))
    return found


def _of_run(found: Record | None) -> Known:
    try:
        return {} if found is None else from_lines([found])
    except ValueError:
        return {}
