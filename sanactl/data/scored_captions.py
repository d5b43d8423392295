"""SANA's choice among an image's captions by their CLIP scores.

Source: NVlabs/Sana, diffusion/data/datasets/sana_data.py, `SanaWebDataset.weighted_sample_clipscore`; the values 25, 0.1
and 22 are those of SANA-1.5's configs (`clip_thr`, `clip_thr_temperature`, `del_img_clip_thr`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sanactl.data.captions import CaptionChoice, drawn
from sanactl.errors import InputError, UsageError

__all__ = ["Score", "ScoreRule", "ScoredChoice", "parse_caption_choice", "score_number", "scores_in"]

KIND = "clipscore"
# How the field of a caption's score ends, and the field of the score of the first caption.
FIELD = "clip_score"
# Images whose first caption scores less are left out.
LEAST = 22.0
_HINT = f"write {KIND}, or {KIND}:25:0.1 for captions of a score of 25 and more and a temperature of 0.1"


@dataclass(frozen=True)
class Score:
    """A CLIP score of one of an image's captions.

    Attributes:
        source: where scores of this kind come from; an image has at most one score of a source.
        column: the caption's column; None is the first caption.
        value: as it was read.
    """

    source: str
    column: str | None
    value: Any


@dataclass(frozen=True)
class ScoreRule:
    """The rule's numbers.

    Attributes:
        threshold: captions with a score of at least this are drawn from.
        temperature: a caption is drawn with a probability proportional to score^(1 / max(temperature, 0.01)).
        least: images whose first caption scores less are left out.
    """

    threshold: float = 25.0
    temperature: float = 0.1
    least: float = LEAST

    def __str__(self) -> str:
        return f"{KIND}:{_exact(self.threshold)}:{_exact(self.temperature)}"


def _exact(number: float) -> str:
    """A number as short as it can be read again."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def parse_caption_choice(text: str, least: float | None = None) -> ScoreRule:
    """Reads "clipscore:25:0.1"; the numbers can be left out.

    Args:
        least: of the rule; None is the default.

    Raises:
        UsageError: it is something else, or a number is negative or not finite.
    """
    kind, *numbers = text.split(":")
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        values = [math.nan]
    if kind != KIND or len(values) > 2 or not all(0 <= value < math.inf for value in values):
        raise UsageError(f"--caption-choice {text[:80]!r} is no choice", hint=_HINT)
    if least is not None and not math.isfinite(least):
        raise UsageError(f"--min-clip-score {least} is no score")
    return ScoreRule(*values, **({} if least is None else {"least": least}))


@dataclass(frozen=True)
class ScoredChoice(CaptionChoice):
    """The rule for columns of captions, of which the first is the one to take where no caption has a score.

    Attributes:
        rule: its numbers.
        scored: for each score of an image the column of the caption.
    """

    rule: ScoreRule = ScoreRule()
    scored: tuple[int, ...] = ()

    def pick(
        self, filled: Sequence[bool], seed: int, position: int, scores: Sequence[float] = ()
    ) -> int | None:
        """The column for the example at a position of the stream: a function of (seed, position) and the example.

        Args:
            filled: for each column whether this example has text in it.
            scores: for each of `scored`; NaN where there is none.

        Returns:
            of the captions that reach the threshold one that is drawn; where none does, that with the largest score;
            where none has a score, the first; None where all are empty. An empty caption has no score.
        """
        known = [
            (float(score), column)
            for score, column in zip(scores, self.scored, strict=True)
            if math.isfinite(score) and filled[column]
        ]
        good = [(score, column) for score, column in known if score >= self.rule.threshold]
        if not good:
            if known:
                return max(known, key=lambda entry: entry[0])[1]
            return next((column for column, has in enumerate(filled) if has), None)
        best = max(score for score, _ in good)
        weights = np.zeros(len(filled))
        for score, column in good:
            # In relation to the best, since 30^100 is near the largest number. A caption with two scores has two weights.
            weights[column] += (score / best) ** (1 / max(self.rule.temperature, 0.01)) if best else 1.0
        return drawn(weights, seed, position)

    @property
    def identity(self) -> str:
        return f"{self} {self.rule} {self.rule.least!r} {self.scored}"


def scores_in(cells: Mapping[str, Any]) -> Iterator[Score]:
    """The scores among a row's cells: `clip_score` is that of the first caption, `long_clip_score` that of `long`."""
    for name, value in cells.items():
        if name == FIELD:
            yield Score(name, None, value)
        elif name.endswith(f"_{FIELD}"):
            yield Score(name, name[: -len(FIELD) - 1], value)
        elif isinstance(value, Mapping):
            for score in scores_in(value):
                column = None if score.column is None else f"{name}.{score.column}"
                yield Score(f"{name}.{score.source}", column, score.value)


def score_number(score: Score, where: str) -> float | None:
    """A score as a number, which may be NaN or infinite; None where there is none. Numbers in text are numbers, too.

    Raises:
        InputError: it is something else.
    """
    value = score.value
    if isinstance(value, InputError):
        raise value
    if value is None or value == "":
        return None
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{where}: the score {str(value)[:40]!r} ({score.source}) is no number") from None
    except OverflowError:
        return math.inf
