"""Training data for `finetune`: examples in an order, addressed by position so that any process can draw any part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sanactl.data.bad import check_bad
from sanactl.data.buckets import bucket_sizes, nearest_buckets
from sanactl.data.listing import digest_of
from sanactl.data.order import BucketOrder, Order, SequentialOrder, ShuffledOrder
from sanactl.data.settings import DataSettings
from sanactl.data.sizes import image_sizes
from sanactl.data.streams import StreamTable
from sanactl.data.tables import Examples, ScoredExamples, ShapesTable, SizedExamples
from sanactl.errors import InputError, UsageError

__all__ = [
    "Fetched", "ImageData", "ShapesSource", "TableSource", "TrainingData", "check_buckets", "fit", "training_source",
]  # fmt: skip

Size = tuple[int, int]  # (height, width) in pixels


class TrainingData(Protocol):
    """Pairs of image and caption: as images (`ImageData`), or as latents and embeddings (`EncodedData`).

    Attributes:
        name: what a person calls it.
        about: for people: how many examples, from where, and what was left out.
        identity: a text that differs where the pairs differ, so that a run is not continued on other data.
        skipped: a line for each image that this process could not read and replaced, in the order it met them; one
            line for an image however often it comes.
    """

    name: str
    about: str
    identity: str
    skipped: list[str]

    def step(self, step: int, count: int) -> tuple[Sequence[int], Size]:
        """Positions of the `count` examples of a step, and the (height, width) that all of them have."""

    def announce(self, say: Callable[[str], None]) -> None:
        """Calls `say` for each image that is skipped: at once for earlier ones, then as they are met."""


@runtime_checkable
class ImageData(TrainingData, Protocol):
    """Pairs as pixels and text."""

    def batch(self, positions: Sequence[int]) -> tuple[NDArray[np.uint8], list[str]]:
        """Images uint8 [B, height, width, 3] and B captions at these positions of the stream."""


class Fetched(NamedTuple):
    """An example: uint8 [height, width, 3], its caption, and (message, hint) of images that were skipped before it.

    `image` is None where more images than allowed could not be read.
    """

    image: NDArray[np.uint8] | None
    caption: str
    skipped: list[tuple[str, str | None]]


class TableSource:
    """Examples in an order, each image resized and cut to the size that the order gives it.

    An image that cannot be read is replaced, with its caption, by the next readable row, so that every process and a
    resumed run train on the same pairs.

    Args:
        examples: images with captions.
        order: of their rows in the stream.
        seed: of the choice among several captions.
        max_bad: how many different images may be unreadable, of those that this process meets.
        skipped: lines about images that the order has left out already; they count.
    """

    def __init__(
        self, examples: Examples, order: Order, seed: int, *, max_bad: int = 0, skipped: Sequence[str] = ()
    ) -> None:
        self.examples, self.order, self.seed, self.max_bad = examples, order, seed, max_bad
        self.name, self.about, self.identity = examples.name, examples.about, examples.identity
        self.skipped = list(skipped)
        self._scored = examples if isinstance(examples, ScoredExamples) else None
        self._say: Callable[[str], None] = lambda line: None
        self._bad: set[int] = set()  # rows
        self._met = set(self.skipped)  # what this process has found to be unreadable

    def step(self, step: int, count: int) -> tuple[Sequence[int], Size]:
        return self.order.step(step, count)

    def batch(self, positions: Sequence[int]) -> tuple[NDArray[np.uint8], list[str]]:
        return self.take(self.fetch(positions))

    def fetch(self, positions: Sequence[int]) -> list[Fetched]:
        """The examples at these positions. Nothing is counted or printed: this may run in another process."""
        if isinstance(self.examples, StreamTable):
            self.examples.release(min(positions))
        return [self._fetch(position) for position in positions]

    def take(self, fetched: Sequence[Fetched]) -> tuple[NDArray[np.uint8], list[str]]:
        """The fetched examples as a batch; images that were skipped for them are counted now.

        Raises:
            InputError: these are too many.
        """
        for example in fetched:
            self.count_skipped(example.skipped)
        images = [example.image for example in fetched if example.image is not None]
        assert len(images) == len(fetched), "what is not fetched is one bad image too many"
        return np.stack(images), [example.caption for example in fetched]

    def _fetch(self, position: int) -> Fetched:
        row = first = self.order.row(position)
        size = self.order.size(row)
        skipped: list[tuple[str, str | None]] = []
        while True:
            if row not in self._bad:
                try:
                    image = fit(self.examples.image(row), size)
                    break
                except InputError as error:
                    self._bad.add(row)
                    # By its message, which names the image: a stream's rows have no end, and every epoch brings the
                    # image again.
                    if error.message not in self._met:
                        self._met.add(error.message)
                        skipped.append((error.message, error.hint))
                    if len(self._met) > self.max_bad:
                        return Fetched(None, "", skipped)
            row = self.order.after(row)
            if row == first:
                raise InputError(f"{self.name}: none of its images of {size[1]} x {size[0]} can be read")
        texts = self.examples.texts(row)
        scores = self._scored.scores(row) if self._scored is not None else ()
        column = self.examples.captions.pick([bool(t) for t in texts], self.seed, position, scores)
        return Fetched(image, "" if column is None else texts[column], skipped)

    def count_skipped(self, skipped: Sequence[tuple[str, str | None]]) -> None:
        """Counts images that were skipped, each once.

        Raises:
            InputError: these are too many.
        """
        for message, hint in skipped:
            if message not in self.skipped:
                check_bad(len(self.skipped) + 1, self.max_bad, InputError(message, hint=hint))
                self.skipped.append(message)
                self._say(f"skipped: {message}")

    def announce(self, say: Callable[[str], None]) -> None:
        for line in self.skipped:
            say(f"skipped: {line}")
        self._say = say


class ShapesSource(TableSource):
    """The built-in world's training stream, without end."""

    def __init__(self, seed: int, size: int = 64) -> None:
        super().__init__(ShapesTable(seed, size), SequentialOrder((size, size)), seed)


def training_source(examples: Examples, settings: DataSettings) -> TableSource:
    """Examples in the order of training: shuffled where their number is known, in aspect-ratio buckets if asked for.

    Raises:
        InputError: of the buckets: too many images cannot be read.
        UsageError: buckets and a stream.
    """
    check_buckets(settings)
    size = (settings.height, settings.width)
    if not isinstance(examples, SizedExamples):
        return TableSource(examples, SequentialOrder(size), settings.seed, max_bad=settings.max_bad)
    if settings.buckets:
        return _bucketed(examples, settings)
    order = ShuffledOrder(examples.count, settings.seed, size)
    return TableSource(examples, order, settings.seed, max_bad=settings.max_bad)


def check_buckets(settings: DataSettings) -> None:
    """Raises UsageError for buckets of a stream."""
    if settings.buckets and settings.streaming:
        raise UsageError(
            "--buckets needs the sizes of all images, which a stream does not tell",
            hint="leave one out, or sanactl encode --streaming --buckets first",
        )


def _bucketed(table: SizedExamples, settings: DataSettings) -> TableSource:
    """Rows in aspect-ratio buckets; the size of each image is read from its header, once, here."""
    images = image_sizes(table)
    multiple = settings.multiple or _multiple_of(settings.height, settings.width)
    sizes = bucket_sizes(settings.height, settings.width, multiple)
    chosen = nearest_buckets(images, sizes)
    skipped: dict[str, None] = {}
    for row in np.flatnonzero(chosen < 0):
        try:
            table.image(int(row))
        except InputError as error:
            skipped[error.message] = None
            check_bad(len(skipped), settings.max_bad, error)
    if (chosen < 0).all():
        raise InputError(f"{table.name}: none of its images can be read")
    order = BucketOrder(chosen, sizes, settings.seed)
    source = TableSource(table, order, settings.seed, max_bad=settings.max_bad, skipped=list(skipped))
    source.identity = digest_of([table.identity, f"buckets {sizes}"])
    return source


def fit(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Resizes the shorter side and crops the centre, to (height, width); uint8 [height, width, 3]."""
    if image.shape[:2] == size:
        return image
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.fit(Image.fromarray(image), size[::-1], Image.Resampling.LANCZOS))


def _multiple_of(height: int, width: int) -> int:
    """Pixels that a bucket's sides are multiples of by default: SANA's 32, below 256 pixels the built-in world's 8."""
    return 32 if min(height, width) >= 256 else 8
