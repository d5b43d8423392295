"""Examples from a stream, which can only be read forwards."""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sanactl.data.captions import CaptionChoice, find_columns, text_of
from sanactl.data.dataset_table import columns_of, image_of
from sanactl.data.listing import digest_of
from sanactl.data.tables import described
from sanactl.errors import InputError, SanactlError

__all__ = ["DatasetStream", "EndOfExamples", "Stream", "StreamTable"]

# Examples, still encoded, from which the next one is drawn at random.
SHUFFLE_BUFFER = 1000


class EndOfExamples(LookupError):
    """A stream ended before the example that was asked for."""


class Stream(Protocol):
    """Rows of cells that are read from the first to the last, any number of times.

    Attributes:
        images: the columns that may hold a row's image.
        name, identity, captions, about: as `Examples`'s.
    """

    name: str
    identity: str
    about: str
    captions: CaptionChoice

    @property
    def images(self) -> Sequence[str]: ...

    def epoch(self, number: int, seed: int | None) -> Iterator[Mapping[str, Any]]:
        """The rows of one reading; with a seed in an order of (seed, number) as far as shards allow it."""


class DatasetStream:
    """A `datasets.IterableDataset` as a `Stream`.

    Args:
        stream: the dataset.
        name, what, identity, captions: as `DatasetTable`'s.
    """

    def __init__(self, stream: Any, name: str, what: str, identity: str, captions: str | None = None) -> None:
        import datasets

        features = stream.features or stream._resolve_features().features
        self.images, columns = columns_of(features, name)
        self.captions = find_columns(columns, captions, name)
        self.name, self.identity = name, identity
        self.about = described(None, name, f"{what}, streamed", [])
        for column in self.images:
            stream = stream.cast_column(column, datasets.Image(decode=False))
        self._stream = stream

    def epoch(self, number: int, seed: int | None) -> Iterator[Mapping[str, Any]]:
        # datasets shuffles shards only together with examples, in a buffer; of one example it leaves these as they are.
        stream = self._stream if seed is None else self._stream.shuffle(seed=seed, buffer_size=1)
        stream.set_epoch(number)
        return iter(stream)


class StreamTable:
    """A stream by number.

    Row n is the nth example of the stream. So a resumed run reads up to where it begins, and each of several processes
    reads all of it; examples that are not its own are not decoded.

    Args:
        stream: where the examples come from.
        seed: shuffles each epoch within a buffer of 1,000 examples, and goes on without end; None reads the stream
            once, as it is stored.
    """

    def __init__(self, stream: Stream, *, seed: int | None = None) -> None:
        self.name, self.count, self.endless = stream.name, None, seed is not None
        self.stream, self.seed, self.captions, self.about = stream, seed, stream.captions, stream.about
        self.identity = digest_of([stream.identity, str(self.captions), f"a stream, {SHUFFLE_BUFFER}"])
        self._restart(0)

    def _restart(self, floor: int) -> None:
        self._source = self._examples()
        self._held: deque[Mapping[str, Any]] = deque()
        self._first, self._floor = 0, floor  # numbers of the first example held, and of the first wanted

    def _examples(self) -> Iterator[Mapping[str, Any]]:
        for epoch in itertools.count():
            rows = captions = 0
            for row in self._shuffled(epoch):
                rows += 1
                # An example's own fault is told when it is asked for.
                captions += captions == 0 and self._has_caption(row)
                yield row
            if not rows:
                raise SanactlError(f"{self.name}: no images")
            if not captions:
                columns = " and ".join(self.captions.columns)
                raise InputError(
                    f"{self.name}: no row has a caption: {columns} is empty in all {rows:,}",
                    hint="name another column with --captions",
                )
            if not self.endless:
                return

    def _has_caption(self, row: Mapping[str, Any]) -> bool:
        try:
            return any(text_of(row, column, self.name) for column in self.captions.columns)
        except InputError:
            return True

    def _shuffled(self, epoch: int) -> Iterator[Mapping[str, Any]]:
        """The rows of an epoch; each is drawn from the next 1,000."""
        rows = self.stream.epoch(epoch, self.seed)
        if self.seed is None:
            yield from rows
            return
        rng = np.random.default_rng([self.seed, epoch, SHUFFLE_BUFFER])
        held: list[Mapping[str, Any]] = []
        for row in rows:
            if len(held) < SHUFFLE_BUFFER:
                held.append(row)
                continue
            place = int(rng.integers(SHUFFLE_BUFFER))
            yield held[place]
            held[place] = row
        yield from (held[place] for place in rng.permutation(len(held)))

    def release(self, row: int) -> None:
        """Examples before `row` will not be asked for again soon, and are no longer held."""
        self._floor = row
        while self._held and self._first < row:
            self._held.popleft()
            self._first += 1

    def _row(self, row: int) -> Mapping[str, Any]:
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
        return image_of(self._row(row), self.stream.images, lambda: self._name(row))

    def texts(self, row: int) -> list[str]:
        cells = self._row(row)
        return [text_of(cells, column, self._where(row)) for column in self.captions.columns]
