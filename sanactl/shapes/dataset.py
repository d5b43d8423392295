"""Training data without files: example number `index` of stream `seed` is always the same picture.

So any number of workers can draw any part of the stream, in any order, and a restarted run sees what it would
have.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sanactl.shapes.prompts import SPLITS, Record, sample_prompt, scene_for
from sanactl.shapes.render import render
from sanactl.shapes.scene import Scene
from sanactl.shapes.vocabulary import TASKS

if TYPE_CHECKING:
    import datasets

# How often a task occurs in training: what is hard to learn (relations, counts, binding) more often.
TASK_WEIGHTS: dict[str, float] = {
    "single_object": 0.10,
    "two_object": 0.15,
    "counting": 0.20,
    "colors": 0.10,
    "position": 0.25,
    "color_attr": 0.20,
}
assert tuple(TASK_WEIGHTS) == TASKS
_CUMULATIVE = np.cumsum(list(TASK_WEIGHTS.values()))


def scene_and_prompt(index: int, seed: int = 0, split: str = "train") -> tuple[Scene, Record]:
    """The scene and the prompt record of an example; a pure function of its arguments."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    tag = TASKS[min(int(np.searchsorted(_CUMULATIVE, rng.random(), side="right")), len(TASKS) - 1)]
    record = sample_prompt(rng, tag, split)
    return scene_for(record, rng), record


def training_example(index: int, seed: int = 0, split: str = "train", size: int = 64) -> dict[str, Any]:
    """One example: `image` (PIL, RGB, `size` x `size`), `text` (the prompt) and `metadata` (its record)."""
    scene, record = scene_and_prompt(index, seed, split)
    return {"image": Image.fromarray(render(scene, size)), "text": record["prompt"], "metadata": record}


def batch(
    indices: Iterable[int], seed: int = 0, size: int = 64, split: str = "train"
) -> tuple[NDArray[np.uint8], list[Record]]:
    """Many examples at once, without PIL.

    Returns:
        images: uint8 [B, size, size, 3]; the same pixels as `training_example` gives.
        records: the B prompt records.
    """
    pairs = [scene_and_prompt(int(i), seed, split) for i in indices]
    images = np.empty((len(pairs), size, size, 3), dtype=np.uint8)
    for image, (scene, _) in zip(images, pairs, strict=True):
        image[:] = render(scene, size)
    return images, [record for _, record in pairs]


def _rows(n: int, seed: int, split: str, size: int) -> Iterator[dict[str, Any]]:
    """Rows as `datasets` stores them; `metadata` as JSON, since Arrow has no type for ["left of", 0]."""
    for index in range(n):
        example = training_example(index, seed, split, size)
        png = io.BytesIO()
        example["image"].save(png, format="PNG")
        yield {
            "image": {"bytes": png.getvalue(), "path": None},
            "text": example["text"],
            "metadata": json.dumps(example["metadata"]),
        }


def as_dataset(
    n: int, seed: int = 0, split: str = "train", size: int = 64, streaming: bool = False
) -> datasets.Dataset | datasets.IterableDataset:
    """The first `n` examples as a Hugging Face dataset with columns image, text and metadata (JSON).

    With `streaming`, an `IterableDataset` that draws as it goes; else a `Dataset` in memory (about 0.7 kB a
    row), not in the on-disk cache, where it could outlive a change of the renderer.
    """
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "text": datasets.Value("string"), "metadata": datasets.Value("string")}
    )
    if streaming:
        kwargs = {"n": n, "seed": seed, "split": split, "size": size}
        return datasets.IterableDataset.from_generator(_rows, features=features, gen_kwargs=kwargs)
    return datasets.Dataset.from_list(list(_rows(n, seed, split, size)), features=features)
