"""Examples from a stream, which can only be read forwards."""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanactl.errors import SanactlError
from sanactl.stages.data.captions import find_columns, text_of
from sanactl.stages.data.tables import columns_of, digest_of, image_of

__all__ = ["EndOfExamples", "StreamTable"]

# Examples, still encoded, from which the next one is drawn at random.
SHUFFLE_BUFFER = 1000


class EndOfExamples(LookupError):
    """There are no so many examples."""


class StreamTable:
    """A `datasets.IterableDataset` by number.

    Row n is the nth example of the stream, so whoever begins anywhere (a resumed run) reads up to there, and every
    process of several reads all of it; images that are passed over are not decoded.

    Args:
        stream: the dataset.
        name, identity, captions: as `DatasetTable`'s.
        seed: shuffles each epoch within a buffer of 1,000 examples, and goes on without end; None reads the stream
            once, as it is stored.
    """

    def __init__(
        self, stream: Any, name: str, identity: str, captions: str | None = None, *, seed: int | None = None
    ) -> None:
        import datasets

        self.name, self.count, self.endless = name, None, seed is not None
        features = stream.features or stream._resolve_features().features
        self.images, columns = columns_of(features, name)
        self.captions = find_columns(columns, captions, name)
        self.identity = digest_of([identity, str(self.captions), f"a stream, {SHUFFLE_BUFFER}"])
        for column in self.images:
            stream = stream.cast_column(column, datasets.Image(decode=False))
        self.stream = stream if seed is None else stream.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)
        self._restart(0)

    def _restart(self, floor: int) -> None:
        self._source = self._examples()
        self._held: deque[dict[str, Any]] = deque()
        self._first, self._floor = 0, floor  # numbers of the first example held, and of the first wanted

    def _examples(self) -> Iterator[dict[str, Any]]:
        for epoch in itertools.count():
            self.stream.set_epoch(epoch)
            empty = True
            for row in self.stream:
                empty = False
                yield row
            if empty:
                raise SanactlError(f"{self.name}: no images")
            if not self.endless:
                return

    def release(self, row: int) -> None:
        """What comes before `row` will not be asked for again soon, and need not be held."""
        self._floor = row
        while self._held and self._first < row:
            self._held.popleft()
            self._first += 1

    def _row(self, row: int) -> dict[str, Any]:
        if row < self._first:
            self._restart(row)
        while row >= self._first + len(self._held):
            try:
                cells = next(self._source)
            except StopIteration:
                raise EndOfExamples from None
            except SanactlError:
                raise
            except Exception as error:  # a damaged shard; datasets raises what its readers raise
                first = next(iter(str(error).splitlines()), type(error).__name__)
                raise SanactlError(f"{self.name}: cannot be read further: {first}") from error
            if self._first < self._floor and not self._held:
                self._first += 1
            else:
                self._held.append(cells)
        return self._held[row - self._first]

    def _where(self, row: int) -> str:
        cells = self._row(row)
        if "__key__" in cells:
            return f"{cells.get('__url__', self.name)}, {cells['__key__']}"
        return f"{self.name}, example {row}"

    def _name(self, row: int) -> str:
        """The same name for the same image in every epoch; where it has no key, by what it holds."""
        cells = self._row(row)
        if not self.endless or "__key__" in cells:
            return self._where(row)
        return f"{self.name}, the example of digest {hashlib.sha256(repr(cells).encode()).hexdigest()[:12]}"

    def image(self, row: int) -> NDArray[np.uint8]:
        return image_of(self._row(row), self.images, lambda: self._name(row))

    def texts(self, row: int) -> list[str]:
        cells = self._row(row)
        return [text_of(cells, column, self._where(row)) for column in self.captions.columns]
