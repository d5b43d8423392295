"""The interface of what answers questions about images (VQA models)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["NUMBERS", "Answerer", "Asked", "spellings"]

# GenEval 2 takes a number's digit for its word.
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Asked:
    """A question about an image.

    Attributes:
        question: as the benchmark has it.
        answers: the answers whose probabilities are wanted, such as ("yes", "no").
        instruction: what a generative model is told after the question ("Please answer yes or no."). Models that were
            trained on questions with short answers get the question alone.
    """

    question: str
    answers: tuple[str, ...]
    instruction: str = ""

    @property
    def text(self) -> str:
        """Question and instruction."""
        return f"{self.question} {self.instruction}".strip()


def spellings(answer: str) -> tuple[str, ...]:
    """An answer in lower case, and a number from 0 to 10 as word and digits."""
    word = " ".join(answer.lower().split())
    if word in NUMBERS:
        return word, str(NUMBERS.index(word))
    if word in map(str, range(len(NUMBERS))):
        return word, NUMBERS[int(word)]
    return (word,)


def rounded(probability: float) -> float:
    """To six digits, as it is kept: a score from kept answers is the same as one from new answers."""
    return float(f"{probability:.6g}") if math.isfinite(probability) else math.nan


class Answerer(Protocol):
    """Answers questions about one image at a time. Its model is loaded when the first question comes."""

    @property
    def label(self) -> str:
        """Its name in scores."""

    @property
    def digest(self) -> str | None:
        """Of its weights ("sha256:..."); None where there are none, or they are behind a server."""

    @property
    def batch_size(self) -> int:
        """Questions at once where the user does not choose."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything except image and question that its answers depend on, as JSON: `model`, where it is one, `dtype`."""

    def answer(self, image: NDArray[np.uint8], asked: Sequence[Asked]) -> list[tuple[float, ...]]:
        """The probability of each of the answers of each question, in [0, 1].

        Args:
            image: uint8 [height, width, 3], RGB.
            asked: at most `batch_size` questions, or as many as the user wants at once.

        Raises:
            InputError: the model cannot be loaded or gives NaN, or a question is one that it cannot answer.
        """
