"""Answerers for tests: answers that follow from pixels and question, counted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanactl.scoring.questions.protocol import Asked

Image = NDArray[np.uint8]


def is_yes(corner: Sequence[int], question: str) -> bool:
    """A fair coin that depends on the image's first pixel and the question alone."""
    return hashlib.sha256(repr(([int(v) for v in corner], question)).encode()).digest()[0] % 5 > 1


class Coins:
    """Answers yes or no by `is_yes`, as a model would, and counts what it is asked."""

    digest = "sha256:coins"
    batch_size = 4

    def __init__(self, spec: str = "coins", **given: Any) -> None:
        self.label, self.identity = spec, {"model": spec}
        self.asked: list[str] = []
        self.trouble: Callable[[int], None] = lambda number: None
        self.answers: Callable[[Image, Asked], tuple[float, ...]] = self.coin

    def coin(self, image: Image, one: Asked) -> tuple[float, ...]:
        yes = is_yes(image[0, 0], one.question)
        return tuple(0.9 if (answer == "yes") == yes else 0.1 for answer in one.answers)

    def answer(self, image: Image, asked: Sequence[Asked]) -> list[tuple[float, ...]]:
        self.trouble(len(self.asked))
        self.asked += [one.question for one in asked]
        return [self.answers(image, one) for one in asked]
