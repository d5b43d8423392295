"""Images for a judge to learn from, with what the detector finds in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sanactl.errors import InputError
from sanactl.files.images import read_image
from sanactl.files.progress import SILENT, Progress
from sanactl.prompts.geneval.vocabulary import COLORS
from sanactl.records.records import Record
from sanactl.scoring.detectors.protocol import Detected
from sanactl.scoring.detectors.shapes import detect_shapes
from sanactl.scoring.geneval.rules import CONFIDENCE, is_confident
from sanactl.shapes.vocabulary import SHAPES
from sanactl.world.judge_model import GRID, IMAGE_SIZE

__all__ = ["NONE", "Pool", "View", "flawed_pool", "record_pool"]

# Objects kept of an image, the most confident first, and the columns of each: score, shape, colour, box.
OBJECTS = 8
SCORE, SHAPE, COLOR, BOX = 0, 1, 2, slice(3, 7)
# An object covers a patch from this share of the patch's pixels on.
COVERED = 0.3
NONE = 0


@dataclass(frozen=True)
class Pool:
    """N images with the objects in them, from which a judge's training data are made.

    Attributes:
        images: uint8 [N, 64, 64, 3].
        objects: float32 [N, OBJECTS, 7], zeros after an image's last object; boxes are in pixels.
        covered: int8 [N, 2, GRID, GRID], 1 + index of the shape (then of the colour) that covers a patch, or NONE.
        records: the prompt record that each image was made for.
    """

    images: NDArray[np.uint8]
    objects: NDArray[np.float32]
    covered: NDArray[np.int8]
    records: list[Record]

    def __len__(self) -> int:
        return len(self.records)

    def view(self, index: int, mirrored: bool) -> View:
        """One image, as it is or mirrored left to right. All six shapes are symmetric; only their places change."""
        image, objects, covered = self.images[index], self.objects[index], self.covered[index]
        objects = objects[objects[:, SCORE] > 0]
        if mirrored:
            objects = objects.copy()
            objects[:, 3], objects[:, 5] = IMAGE_SIZE - objects[:, 5], IMAGE_SIZE - objects[:, 3]
            image, covered = image[:, ::-1], covered[..., ::-1]
        return View(image, objects, covered, self.records[index])

    def part(self, indices: Sequence[int]) -> Pool:
        """A smaller pool."""
        where = np.asarray(indices, dtype=np.intp)
        return Pool(
            self.images[where], self.objects[where], self.covered[where], [self.records[i] for i in where]
        )


@dataclass(frozen=True)
class View:
    """One image of a pool: its pixels, its objects [n, 7], what covers its patches, and its own prompt."""

    image: NDArray[np.uint8]
    objects: NDArray[np.float32]
    covered: NDArray[np.int8]
    record: Record

    def detected(self) -> list[Detected]:
        """The objects as GenEval's rules take them."""
        return [
            Detected(
                SHAPES[int(s)], COLORS[int(c)], float(score), (float(x0), float(y0), float(x1), float(y1))
            )
            for score, s, c, x0, y0, x1, y1 in self.objects
        ]

    def seen(self) -> list[tuple[str, str]]:
        """Shape and colour of the objects that GenEval's rules count."""
        return [(d.name, str(d.color)) for d in self.detected() if is_confident(d.score, CONFIDENCE)]


def _empty(count: int) -> Pool:
    return Pool(
        np.empty((count, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8),
        np.zeros((count, OBJECTS, 7), dtype=np.float32),
        np.zeros((count, 2, GRID, GRID), dtype=np.int8),
        [],
    )


def _put(pool: Pool, image: NDArray[np.uint8], record: Record) -> None:
    index = len(pool.records)
    pool.images[index] = image
    pool.records.append(record)
    patch = IMAGE_SIZE // GRID
    found = sorted(detect_shapes(image), key=lambda d: -d.score)
    for place, d in enumerate(found[:OBJECTS]):
        shape, color = SHAPES.index(d.name), COLORS.index(str(d.color))
        # A score of zero would read as "no object".
        pool.objects[index, place] = [max(d.score, 1e-6), shape, color, *d.box]
        if is_confident(d.score, CONFIDENCE) and d.mask is not None:
            share = d.mask.reshape(GRID, patch, GRID, patch).mean(axis=(1, 3))
            pool.covered[index, 0][share > COVERED] = 1 + shape
            pool.covered[index, 1][share > COVERED] = 1 + color


def flawed_pool(count: int, seed: int, progress: Progress = SILENT) -> Pool:
    """`count` rendered pictures with the faults of a sampler (see `sanactl.world.judge_data`), about 4 ms each."""
    from sanactl.world.judge_data import flawed_example

    pool = _empty(count)
    progress.start(count, "drawing faulty pictures")
    for index in range(count):
        _put(pool, *flawed_example(index, seed))
        progress.advance(1)
    progress.close()
    return pool


def record_pool(records: Sequence[Record], progress: Progress = SILENT) -> Pool:
    """The images of `image` records, which must be of the built-in world and of its training prompts.

    Raises:
        InputError: there are none, an image cannot be read or is not 64 x 64, or a prompt is held out.
    """
    from sanactl.world.judge_prompts import require_train_split

    if not records:
        raise InputError("no image records to train a judge on")
    for record in records:
        require_train_split(record)
    pool = _empty(len(records))
    progress.start(len(records), "reading images")
    for record in records:
        image = read_image(Path(record["path"]))
        if image.shape != pool.images.shape[1:]:
            raise InputError(f"{record['path']}: {image.shape[1]} x {image.shape[0]} pixels, not 64 x 64")
        _put(pool, image, record)
        progress.advance(1)
    progress.close()
    return pool
