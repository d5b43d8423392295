"""Pictures for the training of a detector and of a CLIP, with what the programmatic detector finds in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sanactl.errors import InputError
from sanactl.files.images import read_image
from sanactl.files.progress import SILENT, Progress
from sanactl.prompts.geneval.vocabulary import COLORS
from sanactl.records.records import Record
from sanactl.scoring.detectors.shapes import detect_shapes
from sanactl.shapes.vocabulary import SHAPES
from sanactl.world.detector_model import IMAGE_SIZE

__all__ = ["OBJECTS", "Scenes", "flawed_scenes", "joined", "record_scenes", "scenes_of", "warped_scenes"]

# Objects kept of a picture, the most confident first.
OBJECTS = 8
# Objects with a lower score are none: their shape is too uncertain to learn from.
LEAST = 0.05
# Px that a warped picture is moved by at most, along each axis.
MOVE = 4.0
SCORE, SHAPE, COLOR = 0, 1, 2


@dataclass(frozen=True)
class Scenes:
    """N pictures and the objects in them.

    Attributes:
        images: uint8 [N, 64, 64, 3].
        owners: uint8 [N, 64, 64], 1 + number of the object that a pixel belongs to, or 0. Masks do not overlap.
        objects: float32 [N, OBJECTS, 3]: score, index of the shape, index of the colour; zeros after the last object.
    """

    images: NDArray[np.uint8]
    owners: NDArray[np.uint8]
    objects: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)

    def part(self, indices: NDArray[np.intp]) -> Scenes:
        """Some of the pictures."""
        return Scenes(self.images[indices], self.owners[indices], self.objects[indices])

    def digest(self) -> str:
        """Of pictures and objects, wherever they come from."""
        digest = hashlib.sha256(self.images.tobytes())
        digest.update(self.owners.tobytes() + self.objects.tobytes())
        return digest.hexdigest()


def joined(parts: Sequence[Scenes]) -> Scenes:
    """The pictures of several pools in one."""
    return Scenes(
        np.concatenate([p.images for p in parts]),
        np.concatenate([p.owners for p in parts]),
        np.concatenate([p.objects for p in parts]),
    )


def _empty(count: int) -> Scenes:
    side = IMAGE_SIZE
    return Scenes(
        np.empty((count, side, side, 3), dtype=np.uint8),
        np.zeros((count, side, side), dtype=np.uint8),
        np.zeros((count, OBJECTS, 3), dtype=np.float32),
    )


def _put(scenes: Scenes, index: int, image: NDArray[np.uint8]) -> None:
    scenes.images[index] = image
    found = [d for d in sorted(detect_shapes(image), key=lambda d: -d.score) if d.score >= LEAST]
    for place, d in enumerate(found[:OBJECTS]):
        scenes.objects[index, place] = d.score, SHAPES.index(d.name), COLORS.index(str(d.color))
        scenes.owners[index][d.mask] = place + 1


def scenes_of(images: Iterable[NDArray[np.uint8]], count: int, progress: Progress = SILENT) -> Scenes:
    """`count` pictures, uint8 [64, 64, 3] each, with what the programmatic detector finds in them."""
    scenes = _empty(count)
    for index, image in enumerate(images):
        _put(scenes, index, image)
        progress.advance(1)
    progress.close()
    return scenes


def flawed_scenes(count: int, seed: int, progress: Progress = SILENT) -> Scenes:
    """`count` rendered pictures with the faults of a sampler (see `sanactl.world.judge_data`), about 8 ms each."""
    from sanactl.world.judge_data import flawed_example

    progress.start(count, "drawing faulty pictures")
    return scenes_of((flawed_example(index, seed)[0] for index in range(count)), count, progress)


def warped_scenes(scenes: Scenes, count: int, seed: int, progress: Progress = SILENT) -> Scenes:
    """`count` of the pictures moved and warped a little, with what the programmatic detector finds then.

    A small warp turns many a good shape into a poor one and many a poor one into a good one, so that the model sees
    far more of both than the pictures hold. About 12 ms each.
    """
    progress.start(count, "warping pictures")
    return scenes_of((_warped(scenes, index, seed) for index in range(count)), count, progress)


def _warped(scenes: Scenes, index: int, seed: int) -> NDArray[np.uint8]:
    """Picture `index`, counted around, with a smooth displacement that is a function of the index and the seed."""
    rng = np.random.default_rng([seed, index, 0x3A9])
    cells = int(rng.integers(2, 9))
    coarse = rng.normal(0, rng.uniform(0.1, 1.0), (2, cells, cells))
    move = rng.uniform(-MOVE, MOVE, 2)
    where = np.mgrid[0:IMAGE_SIZE, 0:IMAGE_SIZE].astype(np.float32)
    for axis in range(2):
        smooth = ndimage.zoom(coarse[axis], IMAGE_SIZE / cells, order=1, grid_mode=True, mode="nearest")
        where[axis] += smooth + move[axis]
    image = scenes.images[index % len(scenes)].astype(np.float32)
    channels = [ndimage.map_coordinates(image[..., c], where, order=1, mode="nearest") for c in range(3)]
    return np.stack(channels, axis=-1).round().clip(0, 255).astype(np.uint8)


def record_scenes(records: Sequence[Record], progress: Progress = SILENT) -> Scenes:
    """The images of `image` records, which must be of the built-in world and of its training prompts.

    Raises:
        InputError: there are none, an image cannot be read or is not 64 x 64, or a prompt is held out.
    """
    from sanactl.world.judge_prompts import require_train_split

    if not records:
        raise InputError("no image records to train on", hint="sample some, or leave the records out")
    for record in records:
        require_train_split(record)
    progress.start(len(records), "reading images")
    return scenes_of(map(_image_of, records), len(records), progress)


def _image_of(record: Record) -> NDArray[np.uint8]:
    image = read_image(Path(record["path"]))
    if image.shape != (IMAGE_SIZE, IMAGE_SIZE, 3):
        raise InputError(
            f"{record['path']}: {image.shape[1]} x {image.shape[0]} pixels, not {IMAGE_SIZE} x {IMAGE_SIZE}"
        )
    return image
