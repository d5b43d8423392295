"""Images with captions for `finetune`, addressed by position so that any process can draw any part of the stream.

A source answers `batch(positions)`. The order of a finite source is a new permutation each epoch, a function of the
seed and the epoch alone; the built-in world is endless and its position is its index.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sanactl.errors import InputError
from sanactl.io.images import read_image

__all__ = ["DatasetSource", "RecordSource", "ShapesSource", "TrainingData", "open_training_data"]

CAPTION_COLUMNS = ("text", "caption", "prompt")


class TrainingData(Protocol):
    """Pairs of image and caption."""

    name: str

    def batch(self, positions: Sequence[int]) -> tuple[NDArray[np.uint8], list[str]]:
        """Images uint8 [B, height, width, 3] and B captions at these positions of the stream."""


class ShapesSource:
    """The built-in world's training stream: rendered when asked for, its prompts disjoint from evaluation's."""

    def __init__(self, seed: int, size: int = 64) -> None:
        self.name = "builtin:shapes"
        self.seed, self.size = seed, size

    def batch(self, positions: Sequence[int]) -> tuple[NDArray[np.uint8], list[str]]:
        from sanactl.shapes.dataset import batch

        images, records = batch(positions, seed=self.seed, size=self.size)
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


class RecordSource:
    """`image` records, from a pipe or a file: the image at `path` with the prompt that it was made for."""

    def __init__(self, records: Sequence[dict[str, Any]], seed: int, height: int, width: int) -> None:
        if not records:
            raise InputError("no image records to train on")
        self.name = f"{len(records)} image records"
        self.records, self.size = list(records), (width, height)
        self._shuffled = _Shuffled(len(self.records), seed)

    def batch(self, positions: Sequence[int]) -> tuple[NDArray[np.uint8], list[str]]:
        rows = [self.records[self._shuffled.row(p)] for p in positions]
        return np.stack([fit(read_image(Path(r["path"])), self.size) for r in rows]), [
            r["prompt"] for r in rows
        ]


class DatasetSource:
    """Anything that `datasets.load_dataset` reads: a folder with metadata.jsonl, a dataset id, Parquet, webdataset."""

    def __init__(self, reference: str, seed: int, height: int, width: int) -> None:
        import datasets

        self.name, self.size = reference, (width, height)
        path = Path(reference)
        try:
            if path.is_dir():
                table = datasets.load_dataset("imagefolder", data_dir=str(path.resolve()), split="train")
            elif path.exists() or reference.count("/") != 1 or reference.startswith((".", "/")):
                raise InputError(f"{reference}: not a folder of images", hint="give a folder or a dataset id")
            else:
                table = datasets.load_dataset(reference, split="train")
        except InputError:
            raise
        except (
            Exception
        ) as error:  # datasets raises its own and its file systems' errors; each names the fault
            raise InputError(
                f"{reference}: cannot be read as a dataset: {str(error).splitlines()[0]}"
            ) from error
        columns = table.column_names
        captions = [c for c in CAPTION_COLUMNS if c in columns]
        if "image" not in columns or not captions:
            raise InputError(
                f"{reference}: has columns {', '.join(columns)} but needs image and one of {', '.join(CAPTION_COLUMNS)}",
                hint="put a metadata.jsonl with file_name and text beside the images",
            )
        self.caption = captions[0]
        # Decoding is left to read_image, which bounds the size of what it opens.
        self.table = table.cast_column("image", datasets.Image(decode=False))
        self._shuffled = _Shuffled(len(table), seed)

    def batch(self, positions: Sequence[int]) -> tuple[NDArray[np.uint8], list[str]]:
        rows = [self.table[self._shuffled.row(p)] for p in positions]
        images = []
        for row in rows:
            entry = row["image"]
            source = io.BytesIO(entry["bytes"]) if entry["bytes"] is not None else Path(entry["path"])
            images.append(fit(read_image(source), self.size))
        return np.stack(images), [str(r[self.caption]) for r in rows]


def fit(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resizes the shorter side and crops the centre, to (width, height); uint8 [height, width, 3]."""
    if (image.shape[1], image.shape[0]) == size:
        return image
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.fit(Image.fromarray(image), size, Image.Resampling.LANCZOS))


def open_training_data(
    reference: str | None,
    *,
    seed: int,
    height: int,
    width: int,
    records: Sequence[dict[str, Any]] | None = None,
) -> TrainingData:
    """The source for `--data`: image records if given, else the folder or dataset, else the built-in world."""
    if records is not None:
        return RecordSource(records, seed, height, width)
    if reference is None or reference == "builtin:shapes":
        return ShapesSource(seed, height)
    return DatasetSource(reference, seed, height, width)
