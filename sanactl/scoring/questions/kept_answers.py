"""Answers in a file, so that other rules can score them without the model.

A line of JSON for an image, or for a part of one: `image`, the sha256 of its file; `by`, a digest of what the answers
depend on; `path`; `part`, [x0, y0, x1, y1] in pixels, or null for the whole image; `answers`, a list of [question,
instruction, {answer: probability}].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sanactl.files.content import json_digest
from sanactl.records.fields import number
from sanactl.scoring.kept_lines import KeptLines
from sanactl.scoring.questions.protocol import Answerer, Asked

__all__ = ["Box", "KeptAnswers", "from_lines", "to_line"]

Box = tuple[int, int, int, int]
# By question and instruction, the probability of each answer.
Known = dict[tuple[str, str], dict[str, float]]
_PROBABILITY = number(0, 1)


class KeptAnswers:
    """A file of answers of one VQA model; lines of others are passed over.

    Args:
        path: the file; a new one is made when the first answers are kept.
        answerer: whose answers are read and kept.

    Raises:
        InputError: the file cannot be read.
    """

    def __init__(self, path: Path, answerer: Answerer) -> None:
        by = json_digest([answerer.label, answerer.digest, dict(answerer.identity)])[:32]
        self._lines = KeptLines(path, by, "answers")

    def get(self, image: Path, part: Box | None) -> Known:
        """The answers that are kept for an image or a part of it; of two the later counts."""
        wanted = None if part is None else [*part]
        lines = [line for line in self._lines.of(image) if line.get("part") == wanted]
        try:
            return from_lines(lines)
        except ValueError:
            raise self._lines.damaged(image) from None

    def put(
        self, image: Path, part: Box | None, asked: Sequence[Asked], found: Sequence[Sequence[float]]
    ) -> None:
        """Keeps the probabilities of each question's answers.

        Raises:
            InputError: the file cannot be written.
        """
        fields = {"part": None if part is None else [*part], **to_line(asked, found)}
        self._lines.put([(image, fields)])


def to_line(asked: Sequence[Asked], found: Sequence[Sequence[float]]) -> dict[str, Any]:
    """{"answers": ...} of probabilities."""
    return {
        "answers": [
            [one.question, one.instruction, dict(zip(one.answers, probabilities, strict=True))]
            for one, probabilities in zip(asked, found, strict=True)
        ]
    }


def from_lines(lines: Sequence[Mapping[str, Any]]) -> Known:
    """The probabilities of `to_line`.

    Raises:
        ValueError: a line is not of that form.
    """
    known: Known = {}
    for line in lines:
        answers = line.get("answers")
        for entry in answers if isinstance(answers, list) else [None]:
            match entry:
                case [str(question), str(instruction), dict(probabilities)]:
                    if not all(map(_PROBABILITY.fits, probabilities.values())):
                        raise ValueError("no probability")
                    known.setdefault((question, instruction), {}).update(probabilities)
                case _:
                    raise ValueError("no answers")
    return known
