"""The order of a finite table's examples in an endless stream: a function of the seed alone, at any step at once.

No state is carried from step to step, so a resumed run and every process of several find the same examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["BucketOrder", "Order", "SequentialOrder", "ShuffledOrder"]

Size = tuple[int, int]  # (height, width) in pixels


class Order(Protocol):
    """Steps to positions of the stream, positions to rows of the table."""

    def step(self, step: int, count: int) -> tuple[Sequence[int], Size]:
        """Positions of a step's `count` examples, and the size that all of them have."""

    def row(self, position: int) -> int:
        """The row at a position of the stream."""

    def size(self, row: int) -> Size:
        """The size that a row's image is brought to."""

    def after(self, row: int) -> int:
        """The row that replaces one that cannot be read: the next one of the same size, in the table's order."""


class ShuffledOrder:
    """All rows of one size, every epoch in a new order."""

    def __init__(self, rows: int, seed: int, size: Size) -> None:
        self.rows, self.seed, self._size = rows, seed, size
        self._order = lru_cache(maxsize=2)(self._permutation)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(self.rows)

    def step(self, step: int, count: int) -> tuple[Sequence[int], Size]:
        return range(step * count, (step + 1) * count), self._size

    def row(self, position: int) -> int:
        return int(self._order(position // self.rows)[position % self.rows])

    def size(self, row: int) -> Size:
        return self._size

    def after(self, row: int) -> int:
        return (row + 1) % self.rows


class SequentialOrder:
    """Rows as they come, of one size: for what has no end or no known one."""

    def __init__(self, size: Size) -> None:
        self._size = size

    def step(self, step: int, count: int) -> tuple[Sequence[int], Size]:
        return range(step * count, (step + 1) * count), self._size

    def row(self, position: int) -> int:
        return position

    def size(self, row: int) -> Size:
        return self._size

    def after(self, row: int) -> int:
        return row + 1


class BucketOrder:
    """Rows of several sizes; the examples of a step share one.

    Each bucket is an endless stream of its own, shuffled anew each time it begins again, and a step takes the next
    examples of one bucket. Which bucket: that of a random row, the rows in an order without repetition. So in as many
    steps as there are rows each bucket has exactly as many steps as it has rows, every image is seen equally often in
    the long run, and images that a bucket has left at the end of an epoch are taken next.

    Args:
        bucket_of: [rows] number of each row's bucket; -1 leaves the row out.
        sizes: (height, width) of each bucket.
        seed: of the order.
    """

    def __init__(self, bucket_of: NDArray[np.int64], sizes: Sequence[Size], seed: int) -> None:
        self.bucket_of, self.sizes, self.seed = bucket_of, list(sizes), seed
        self.rows = len(bucket_of)
        self._members = [np.flatnonzero(bucket_of == b) for b in range(len(self.sizes))]
        self._labels = bucket_of[bucket_of >= 0]
        self._schedule = lru_cache(maxsize=2)(self._make_schedule)
        self._shuffled = lru_cache(maxsize=64)(self._shuffle)

    def _make_schedule(self, cycle: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each step of a cycle its bucket, and how many steps of that bucket the cycle has before it."""
        labels = np.random.default_rng([self.seed, cycle]).permutation(self._labels)
        before = np.empty_like(labels)
        for bucket in range(len(self.sizes)):
            (steps,) = np.nonzero(labels == bucket)
            before[steps] = np.arange(len(steps))
        return labels, before

    def _shuffle(self, bucket: int, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch, bucket]).permutation(self._members[bucket])

    def step(self, step: int, count: int) -> tuple[Sequence[int], Size]:
        cycle, place = divmod(step, len(self._labels))
        labels, before = self._schedule(cycle)
        bucket = int(labels[place])
        members = len(self._members[bucket])
        start = (cycle * members + int(before[place])) * count
        positions = []
        for i in range(start, start + count):
            epoch, at = divmod(i, members)
            # A position names the row and the visit to it, so that it can be read without knowing the step.
            positions.append(epoch * self.rows + int(self._shuffled(bucket, epoch)[at]))
        return positions, self.sizes[bucket]

    def row(self, position: int) -> int:
        return position % self.rows

    def size(self, row: int) -> Size:
        return self.sizes[int(self.bucket_of[row])]

    def after(self, row: int) -> int:
        members = self._members[int(self.bucket_of[row])]
        return int(members[(int(np.searchsorted(members, row)) + 1) % len(members)])
