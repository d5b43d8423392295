"""Which images a step has: a function of seed and step alone, whatever the batch is divided into."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Order"]


class Order:
    """An endless stream of images, cut into batches.

    Each image is drawn once before any is drawn again. With `balance` right and wrong images take turns, and each kind is
    a stream of its own: the rarer one begins again sooner.

    Args:
        labels: of the images.
        seed: of the order.
        balance: see above.
    """

    def __init__(self, labels: Sequence[bool], seed: int, *, balance: bool) -> None:
        truth = np.asarray(labels, dtype=bool)
        every = np.arange(len(truth))
        self._kinds = [every[truth], every[~truth]] if balance else [every]
        self._seed = seed
        self._rounds: dict[int, tuple[int, NDArray[np.int64]]] = {}

    def batch(self, step: int, size: int) -> list[int]:
        """The places of a step's images among all."""
        return [self._at(place) for place in range(step * size, (step + 1) * size)]

    def _at(self, place: int) -> int:
        number, kind = divmod(place, len(self._kinds))
        images = self._kinds[kind]
        turn, rest = divmod(number, len(images))
        known = self._rounds.get(kind)
        if known is None or known[0] != turn:
            shuffled = np.random.default_rng([self._seed, kind, turn, 0x1D6E]).permutation(images)
            known = self._rounds[kind] = (turn, shuffled)
        return int(known[1][rest])
