"""Batches of image records, and their results as a stopped run has kept them: a batch is known as a whole or not at all.

So a run that goes on computes the batches of an undisturbed run: results of models depend on the batch in the last digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from sanactl.records.partial import Partial, image_key
from sanactl.records.records import Record

__all__ = ["KeptBatches", "batches"]

Item = TypeVar("Item")


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`; the last may be shorter."""
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch


class KeptBatches:
    """The results of images, a record each.

    Args:
        kept: where they are; None for nowhere.
        is_result: whether a record from there is a sound result.
    """

    def __init__(self, kept: Partial | None, is_result: Callable[[dict[str, Any]], bool]) -> None:
        self._kept, self._is_result = kept, is_result
        self._keys: dict[int, list[str | None]] = {}

    def known(self, batch: Sequence[Record]) -> list[Record] | None:
        """The results of a batch, if all of them are there."""
        if self._kept is None:
            return None
        # Before the images are read: a file that changes then gets a new result in the next run.
        keys = [image_key(record) for record in batch]
        found = [result for key in keys if (result := self._kept.get(key)) and self._is_result(result)]
        if len(found) == len(batch):
            return found
        self._keys[id(batch)] = keys
        return None

    def keep(self, batch: Sequence[Record], results: Sequence[Record]) -> None:
        """Keeps the results of a batch that was not known."""
        if self._kept is not None:
            self._kept.put(zip(self._keys.pop(id(batch)), results, strict=True))
