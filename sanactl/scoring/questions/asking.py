"""Questions about images asked once: kept answers are taken, others asked for and kept.

The work is divided by images (`sanactl.model.sharing.share`): the first process looks up what is known and keeps what is
new, any process asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError, SanactlError
from sanactl.model.sharing import share
from sanactl.records.partial import Partial, image_key
from sanactl.records.records import Record
from sanactl.scoring.questions.kept_answers import Box, KeptAnswers, Known, from_lines, to_line
from sanactl.scoring.questions.protocol import Answerer, Asked, rounded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Asking", "Loaded", "Questions", "ask"]

# The probabilities of each question's answers.
Answers = list[tuple[float, ...]]
# The answers to batches of questions, by the part's place and the number of the first question.
Batches = dict[tuple[int, int], Answers]


class Loaded:
    """An image's pixels, read once. They are not sent to another process, which reads them itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pixels: NDArray[np.uint8] | None = None

    def pixels(self) -> NDArray[np.uint8]:
        """uint8 [height, width, 3]."""
        if self._pixels is None:
            from sanactl.files.images import read_image

            self._pixels = read_image(self.path)
        return self._pixels

    def part(self, part: Box | None) -> NDArray[np.uint8]:
        """The pixels of a part."""
        from sanactl.scoring.questions.parts import crop

        return crop(self.pixels(), part)

    def __reduce__(self) -> tuple[Any, ...]:
        return Loaded, (self.path,)


@dataclass
class Questions:
    """What is asked about one image.

    Attributes:
        record: the image's.
        asked: the questions, the same about each part. None: there are none.
        parts: the parts of the image; None for the whole.
        image: its pixels.
        about: what the caller remembers of it.
        fault: why nothing can be asked; it is raised when its turn comes.
        refused: why the image is left out.
        had: the answers that are known, in whole batches.
        missing: the batches that are asked.
    """

    record: Record
    asked: Sequence[Asked] | None = None
    parts: Sequence[Box | None] = (None,)
    image: Loaded | None = None
    about: Any = None
    fault: SanactlError | None = None
    refused: str | None = None
    had: Batches = field(default_factory=dict)
    missing: list[tuple[int, int]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


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

    def answers(self, images: Iterable[Questions]) -> Iterator[tuple[Questions, list[Answers]]]:
        """Each image with the answers about each of its parts, see `Answerer.answer`; six digits of each.

        Questions are asked in batches of one image. A batch is asked again unless all of its answers are kept, so that
        the same questions and batch size give the same answers, also after a stop, and on any number of processes.

        Raises:
            InputError: an image cannot be read, or the model cannot answer.
        """
        work = share(images, partial(ask, self.answerer, self.batch_size), known=self._known, keep=self._keep)
        for one, new, _ in work:
            if one.fault is not None:
                raise one.fault
            yield one, [] if one.asked is None or one.refused else self._whole(one, new)

    def _known(self, one: Questions) -> Batches | None:
        """Looks up what is known of an image; None if something has to be asked."""
        if one.asked is None or one.fault is not None:
            return {}
        try:
            return self._looked_up(one, one.asked)
        except SanactlError as error:
            one.fault = error
            return {}

    def _looked_up(self, one: Questions, asked: Sequence[Asked]) -> Batches | None:
        path = Path(one.record["path"])
        recorded = getattr(self.answerer, "recorded", None)
        for place, part in enumerate(one.parts):
            if recorded is not None and part is not None:
                try:
                    one.had[place, 0] = recorded(path.name.split(".")[0], place, asked)
                except KeyError as error:
                    one.refused = f"mPLUG was not asked all questions about it, as {error.args[0][-1]!r}"
                    return {}
                self.taken += len(asked)
                continue
            known: Known = {}
            if self.file is not None:
                known = self.file.get(path, part)
            elif self.kept is not None:
                key = image_key({**one.record, "part": part, "asked": [a.text for a in asked]})
                one.keys.append(key)
                known = _of_run(self.kept.get(key))
            for first in range(0, len(asked), self.batch_size):
                batch = asked[first : first + self.batch_size]
                if (had := _had(known, batch)) is not None:
                    self.taken += len(batch)
                    one.had[place, first] = had
                else:
                    one.missing.append((place, first))
        return None if one.missing else {}

    def _keep(self, one: Questions, new: Batches) -> None:
        assert one.asked is not None
        if self.file is not None:
            path = Path(one.record["path"])
            for place, first in one.missing:
                batch = one.asked[first : first + self.batch_size]
                self.file.put(path, one.parts[place], batch, new[place, first])
        elif self.kept is not None:
            asked = {place for place, _ in one.missing}
            whole = self._whole(one, new)
            self.kept.put(
                [(one.keys[p], to_line(one.asked, whole[p])) for p in range(len(whole)) if p in asked]
            )

    def _whole(self, one: Questions, new: Batches) -> list[Answers]:
        """The answers about each part, of known and new batches."""
        every = {**one.had, **new}
        return [
            [answer for at, first in sorted(every) if at == place for answer in every[at, first]]
            for place in range(len(one.parts))
        ]


def ask(answerer: Answerer, batch_size: int, one: Questions) -> Batches:
    """Asks what is missing about an image, in any process.

    Raises:
        InputError: the image cannot be read, or the model cannot answer.
    """
    assert one.asked is not None and one.image is not None
    found: Batches = {}
    pixels: dict[int, NDArray[np.uint8]] = {}
    for place, first in one.missing:
        if place not in pixels:
            pixels = {place: one.image.part(one.parts[place])}
        batch = one.asked[first : first + batch_size]
        found[place, first] = _ask(answerer, one.image.path, pixels[place], batch)
    return found


def _ask(answerer: Answerer, path: Path, image: NDArray[np.uint8], batch: Sequence[Asked]) -> Answers:
    try:
        answers = answerer.answer(image, batch)
    except InputError as error:
        raise InputError(f"{path}: {error.message}", hint=error.hint) from None
    found = [tuple(rounded(p) for p in each) for each in answers]
    for one, probabilities in zip(batch, found, strict=True):
        if not all(0 <= p <= 1 for p in probabilities):
            raise InputError(
                f"{path}: {answerer.label} gives no probability for {one.question[:60]!r}"
                f" ({', '.join(map(str, probabilities))})",
                hint="run it in float32, or take another model",
            )
    return found


def _had(known: Known, batch: Sequence[Asked]) -> Answers | None:
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
