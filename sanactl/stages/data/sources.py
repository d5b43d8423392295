"""Images with captions for `finetune`, addressed by position so that any process can draw any part of the stream.

A source answers `batch(positions)`. The order of a finite source is a new permutation each epoch, a function of the
seed and the epoch alone; the built-in world is endless and its position is its index.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sanactl.errors import InputError
from sanactl.io.images import read_image
from sanactl.io.records import load_records

__all__ = ["DatasetSource", "RecordSource", "ShapesSource", "TrainingData", "open_training_data"]

CAPTION_COLUMNS = ("text", "caption", "prompt")


class TrainingData(Protocol):
    """Pairs of image and caption.

    Attributes:
        name: what a person calls it.
        identity: a text that is another one where the pairs are, so that a run is not continued on other data.
    """

    name: str
    identity: str

    def step(self, step: int, count: int) -> tuple[Sequence[int], tuple[int, int]]:
        """Positions of the `count` examples of a step, and the (height, width) that all of them have."""

    def batch(self, positions: Sequence[int]) -> tuple[NDArray[np.uint8], list[str]]:
        """Images uint8 [B, height, width, 3] and B captions at these positions of the stream."""


class _OneSize:
    """Examples in the order of the stream, all of one size."""

    size: tuple[int, int]  # (height, width)

    def step(self, step: int, count: int) -> tuple[Sequence[int], tuple[int, int]]:
        return range(step * count, (step + 1) * count), self.size


class ShapesSource(_OneSize):
    """The built-in world's training stream: rendered when asked for, its prompts disjoint from evaluation's."""

    def __init__(self, seed: int, size: int = 64) -> None:
        self.name = self.identity = "builtin:shapes"
        self.seed, self.size = seed, (size, size)

    def batch(self, positions: Sequence[int]) -> tuple[NDArray[np.uint8], list[str]]:
        from sanactl.shapes.dataset import batch

        images, records = batch(positions, seed=self.seed, size=self.size[0])
        return images, [r["prompt"] for r in records]


class _Shuffled:
    """Positions of an endless stream to rows of a finite table, every epoch in a new order."""

    def __init__(self, rows: int, seed: int) -> None:
        self.rows, self.seed = rows, seed
        self._order = lru_cache(maxsize=2)(self._permutation)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(self.rows)

    def row(self, position: int) -> int:
        return int(self._order(position // self.rows)[position % self.rows])


class RecordSource(_OneSize):
    """`image` records, from a pipe or a file: the image at `path` with the prompt that it was made for."""

    def __init__(self, records: Sequence[dict[str, Any]], seed: int, height: int, width: int) -> None:
        if not records:
            raise InputError("no image records to train on")
        self.name = f"{len(records)} image records"
        self.identity = _digest(f"{r['path']}\0{r['prompt']}" for r in records)
        self.records, self.size = list(records), (height, width)
        self._shuffled = _Shuffled(len(self.records), seed)

    def batch(self, positions: Sequence[int]) -> tuple[NDArray[np.uint8], list[str]]:
        rows = [self.records[self._shuffled.row(p)] for p in positions]
        images = [fit(read_image(Path(r["path"])), self.size) for r in rows]
        return np.stack(images), [r["prompt"] for r in rows]


class DatasetSource(_OneSize):
    """Anything that `datasets.load_dataset` reads: a folder with metadata.jsonl, a dataset id, Parquet, webdataset."""

    def __init__(self, reference: str, seed: int, height: int, width: int) -> None:
        import datasets

        self.name, self.size = reference, (height, width)
        table = _load(reference)
        columns = table.column_names
        captions = [c for c in CAPTION_COLUMNS if c in columns]
        if "image" not in columns or not captions:
            raise InputError(
                f"{reference}: has columns {', '.join(columns)} but needs image and one of {', '.join(CAPTION_COLUMNS)}",
                hint="put a metadata.jsonl with file_name and text beside the images",
            )
        self.caption = captions[0]
        folder = Path(reference)
        files = sorted(folder.rglob("*")) if folder.is_dir() else []
        self.identity = _digest(
            [f"{reference} {len(table)}"]
            + [
                f"{f.relative_to(folder)} {f.stat().st_size} {f.stat().st_mtime_ns}"
                for f in files
                if f.is_file()
            ]
        )
        # Decoding is left to read_image, which bounds the size of what it opens.
        self.table = table.cast_column("image", datasets.Image(decode=False))
        self._shuffled = _Shuffled(len(table), seed)

    def batch(self, positions: Sequence[int]) -> tuple[NDArray[np.uint8], list[str]]:
        places = [self._shuffled.row(p) for p in positions]
        rows = [self.table[place] for place in places]
        images = [fit(self._image(row["image"], at), self.size) for row, at in zip(rows, places, strict=True)]
        return np.stack(images), [str(r[self.caption] or "") for r in rows]

    def _image(self, entry: dict[str, Any], place: int) -> NDArray[np.uint8]:
        if entry["bytes"] is None:
            return read_image(Path(entry["path"]))
        try:
            return read_image(io.BytesIO(entry["bytes"]))
        except InputError as error:
            raise InputError(f"{self.name}, row {place}: {error.message}") from error


def _load(reference: str) -> Any:
    """The training split of a folder or of a dataset on the Hub, as a `datasets.Dataset`."""
    import datasets

    datasets.disable_progress_bars()
    path = Path(reference)
    try:
        if path.is_dir():
            return datasets.load_dataset("imagefolder", data_dir=str(path.resolve()), split="train")
        if path.exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", reference):
            what = "is no folder of images" if path.exists() else "there is no such folder"
            raise InputError(
                f"{reference}: {what}", hint="give a folder, a dataset id or a .jsonl of records"
            )
        return datasets.load_dataset(reference, split="train")
    except InputError:
        raise
    except Exception as error:  # datasets raises its own and its file systems' errors; each names the fault
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{reference}: cannot be read as a dataset: {first}") from error


def _digest(lines: Iterable[str]) -> str:
    """A fingerprint of lines of text."""
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def fit(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resizes the shorter side and crops the centre, to (height, width); uint8 [height, width, 3]."""
    if image.shape[:2] == size:
        return image
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.fit(Image.fromarray(image), size[::-1], Image.Resampling.LANCZOS))


def open_training_data(
    reference: str | None,
    *,
    seed: int,
    height: int,
    width: int,
    records: Sequence[dict[str, Any]] | None = None,
    captions: str | None = None,
    buckets: bool = False,
    streaming: bool = False,
    max_bad: int = 0,
) -> TrainingData:
    """The source for `--data`: image records if given (or named, as a .jsonl file), else the folder or dataset, else
    the built-in world.

    Raises:
        InputError: it is none of these, has no images with captions, or cannot be read.
    """
    if records is not None:
        return RecordSource(records, seed, height, width)
    if reference is None or reference == "builtin:shapes":
        return ShapesSource(seed, height)
    if reference.endswith(".jsonl"):
        return RecordSource(load_records(Path(reference), kinds=("image",)), seed, height, width)
    return DatasetSource(reference, seed, height, width)
