"""The output folder of `sample`: GenEval's layout, for one list of prompts, with metadata in each image.

FOLDER/settings.json            the settings that decide the images, and a digest of the list of prompts
FOLDER/images.jsonl             the image records of the last run
FOLDER/blocked.jsonl            with a guard: the prompts that it blocked
FOLDER/00000/metadata.jsonl     the prompt's record
FOLDER/00000/samples/0000.png   its text chunk `sanactl` has its prompt, index, seed and settings

A folder has the images of one list, so its score is over these images only. A prompt's folder is made when its first image
is drawn.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import OutputExistsError
from sanactl.files.atomic import atomic_path, write_files
from sanactl.files.images import png_bytes
from sanactl.records.records import Record, dumps
from sanactl.sampling.open_folder import MARK, folder_settings, given_components, mark_of

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from sanactl.checkpoint.open import Checkpoint
    from sanactl.model.conditioning import SamplingSettings

__all__ = ["SampleFolder"]


class SampleFolder:
    """The images of one run in an opened folder: their records, which of them exist, and how they are written.

    Args:
        folder: see `open_folder`.
        checkpoint, settings, seed, dtype: these decide the images, besides prompt and index.
        prompts: prompt records, each with an `id`; their other fields are copied to the image records.
        count: number of images of each prompt.
        guard: what decided which prompts these are, if a guard did; see `folder_settings`.
    """

    def __init__(
        self,
        folder: Path,
        checkpoint: Checkpoint,
        settings: SamplingSettings,
        prompts: Sequence[Record],
        *,
        count: int,
        seed: int,
        dtype: torch.dtype,
        guard: Mapping[str, Any] | None = None,
    ) -> None:
        from sanactl.model.flops import ImageCosts

        self._guard, self._costs = guard, ImageCosts(checkpoint, settings)
        self.folder, self.prompts, self.count, self.seed = folder, prompts, count, seed
        self.checkpoint, self.settings, self.dtype = checkpoint, settings, dtype
        self._common = {
            "checkpoint": str(checkpoint.path),
            "digest": checkpoint.digest,
            "steps": settings.steps,
            "guidance_scale": settings.guidance_scale,
            "flops": 0.0,  # of the prompt: see `_image`
            "height": settings.height,
            "width": settings.width,
            "negative_prompt": settings.negative_prompt,
            "complex_human_instruction": settings.complex_human_instruction,
        }
        if settings.instruction is not None:
            # The text itself is in the folder's settings.json and in each image.
            self._common["instruction"] = (
                "sha256:" + hashlib.sha256(settings.instruction.encode()).hexdigest()[:16]
            )
        self._function = {
            "digest": checkpoint.digest,
            "dtype": str(dtype),
            **settings.identity(),
            **given_components(checkpoint),
        }

    def __len__(self) -> int:
        return len(self.prompts) * self.count

    @property
    def identity(self) -> dict[str, Any]:
        """The contents of the folder's settings.json; see `folder_settings`."""
        return folder_settings(
            self.checkpoint, self.settings, self.seed, self.dtype, self.prompts, self._guard
        )

    def record(self, number: int) -> Record:
        """The record of image `number`, counted prompt by prompt from 0."""
        return self._image(*self.place(number), self.count)

    def place(self, number: int) -> tuple[int, int]:
        """The number of an image's prompt, and the image's index."""
        return divmod(number, self.count)

    def _image(self, place: int, index: int, samples: int) -> Record:
        """The record of an image by the number of its prompt and its index; `samples` is the number of its prompt's images."""
        from sanactl.model.sampler import image_seed

        prompt = self.prompts[place]
        return {
            "kind": "image",
            "path": str(self._path(place, index)),
            "prompt_id": str(prompt["id"]),
            # A prompt's record must not set the path of its image.
            **{k: v for k, v in prompt.items() if k not in ("kind", "id", "path", "prompt_id")},
            "index": index,
            "samples": samples,
            "seed": image_seed(self.seed, prompt["prompt"], index),
            **self._common,
            "flops": float(self._costs.of(prompt["prompt"]).total),
        }

    def missing(self, records: Iterable[Record]) -> Iterator[int]:
        """The positions, among these records, of the images that are not drawn yet.

        Raises:
            OutputExistsError: another image has the path of an image to be drawn.
        """
        for position, record in enumerate(records):
            path = Path(record["path"])
            if not path.exists():
                yield position
            elif mark_of(path) != self._mark(record):
                raise OutputExistsError(
                    f"{path} is of another prompt, seed or settings, or not drawn by sanactl",
                    hint="move it away, or give another folder with -o",
                )

    def missing_prompts(self, numbers: Iterable[int]) -> Iterator[str]:
        """The prompts of those of these images that are not there yet."""
        for number in numbers:
            place, index = self.place(number)
            if not self._path(place, index).exists():
                yield self.prompts[place]["prompt"]

    def _path(self, place: int, index: int) -> Path:
        return self.folder / f"{place:05d}" / "samples" / f"{index:04d}.png"

    def write(self, images: Iterable[tuple[Record, NDArray[np.uint8]]]) -> None:
        """Write images, uint8 [height, width, 3], each whole or not at all, with one flush for all of them."""
        contents = {}
        for record, pixels in images:
            path = Path(record["path"])
            path.parent.mkdir(parents=True, exist_ok=True)
            text = {MARK: json.dumps(self._mark(record), ensure_ascii=False)}
            contents[path] = png_bytes(pixels, text=text)
        write_files(contents)

    def describe(self, numbers: Iterable[int]) -> None:
        """Write the metadata.jsonl of these images' prompts, in the format of GenEval's own evaluation."""
        for place in sorted({self.place(number)[0] for number in numbers}):
            file = self.folder / f"{place:05d}" / "metadata.jsonl"
            text = dumps({k: v for k, v in self.prompts[place].items() if k != "kind"})
            with contextlib.suppress(OSError, ValueError):
                if file.is_file() and file.read_text(encoding="utf-8") == text:
                    continue
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(file, force=True) as temporary:
                temporary.write_text(text, encoding="utf-8")

    def _mark(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Everything that decides an image, as written into its PNG."""
        return {
            "prompt": record["prompt"],
            "index": record["index"],
            "seed": record["seed"],
            **self._function,
        }
