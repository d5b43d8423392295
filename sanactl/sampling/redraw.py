"""Draft and redraw: `sample --redraw` draws the images of records again, with another checkpoint, number of steps or dtype.

Many images are drawn cheaply, a judge picks some of them, and those alone are drawn at full length. The initial noise of
an image depends on the base seed, its prompt and its index (`sanactl.model.sampler.image_seed`), and it decides most of
the composition. So a good draft tends to become a good image. Images do not depend on their batch
(`sanactl.model.conditioning`). So a redrawn image is, bit for bit, the one that `sample` would have drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError
from sanactl.files.content import json_digest
from sanactl.records.fields import FIELDS
from sanactl.records.prompts import check_prompts
from sanactl.records.records import Record
from sanactl.sampling.sample_folder import SampleFolder

if TYPE_CHECKING:
    import torch

    from sanactl.checkpoint.open import Checkpoint
    from sanactl.model.conditioning import SamplingSettings

__all__ = ["Drafts", "RedrawFolder", "read_drafts"]

# Fields of an image's record that say nothing about its prompt, beside those of `FIELDS`: settings, and scores of the draft.
_OF_AN_IMAGE = frozenset(FIELDS["image"]) - frozenset(FIELDS["prompt"]) | {
    "kind", "negative_prompt", "complex_human_instruction", "instruction", "dtype", "clip_score", "truncated",
}  # fmt: skip
# What all drafts of one redraw have in common. Scores of drafts with other settings could not be compared.
_ALIKE = {"digest": "checkpoints", "steps": "numbers of steps", "height": "heights", "width": "widths"}


@dataclass(frozen=True)
class Drafts:
    """Images to draw again.

    Attributes:
        prompts: prompt records, each with an `id`, in the order in which they came.
        images: of each image the number of its prompt, its index, and the fields that tell of the draft; sorted.
    """

    prompts: list[Record]
    images: list[tuple[int, int, Record]]

    def digest(self) -> str:
        """A fingerprint of what is drawn again."""
        chosen = [[self.prompts[place]["prompt"], index, draft] for place, index, draft in self.images]
        return f"sha256:{json_digest(chosen)}"


def read_drafts(records: Iterable[Mapping[str, Any]], settings: SamplingSettings, seed: int) -> Drafts:
    """Sorts the records of drafts by prompt, and checks that they can be drawn again.

    Args:
        records: `image` records of `sample`, in any order.
        settings: of the redraw. The drafts must have the same size, because the noise of another size is another image.
        seed: the base seed of the redraw.

    Raises:
        InputError: a record lacks what its image depends on; its seed is not that of `seed`, its prompt and its index; an
            image comes twice or has another size; or the drafts are of different checkpoints or settings.
    """
    from sanactl.model.sampler import image_seed

    places: dict[tuple[Any, str], int] = {}
    prompts: list[Record] = []
    chosen: dict[tuple[int, int], Record] = {}
    first: Mapping[str, Any] | None = None
    for record in records:
        path, prompt = record.get("path", "an image"), record.get("prompt")
        if record.get("kind", "image") != "image":
            raise InputError(
                f"a {record['kind']} record among the images to redraw",
                hint="--redraw takes image records alone",
            )
        lacking = [f for f in ("prompt", "index", "seed", "height", "width") if record.get(f) in (None, "")]
        if lacking:
            raise InputError(
                f"{path}: its record has no {lacking[0]}, so it cannot be drawn again",
                hint="--redraw takes the records of sanactl sample",
            )
        first = first or record
        for name, what in _ALIKE.items():
            if record.get(name) != first.get(name):
                raise InputError(
                    f"the drafts are of different {what}: {first.get(name)} in {first['path']},"
                    f" {record.get(name)} in {path}",
                    hint="redraw those of each run by themselves",
                )
        if (record["height"], record["width"]) != (settings.height, settings.width):
            raise InputError(
                f"{path} has {record['width']} x {record['height']} pixels, and the redraw would have"
                f" {settings.width} x {settings.height}",
                hint="the noise of another size is another image; --height and --width set the size",
            )
        if image_seed(seed, str(prompt), record["index"]) != record["seed"]:
            raise InputError(
                f"{path}: its seed is not that of --seed {seed}, its prompt and its index",
                hint="give the --seed that the drafts were drawn with; their prompts must be unchanged",
            )
        key = (record.get("prompt_id"), str(prompt))
        if key not in places:
            places[key] = len(prompts)
            prompts.append(_prompt_of(record, len(prompts)))
        image = (places[key], record["index"])
        if image in chosen:
            raise InputError(f"{path}: image {record['index']} of its prompt comes twice")
        chosen[image] = _draft_fields(record)
    check_prompts(prompts, "the images to redraw")
    return Drafts(prompts, [(*image, chosen[image]) for image in sorted(chosen)])


def _prompt_of(record: Mapping[str, Any], number: int) -> Record:
    """The prompt's record, from that of one of its images."""
    name = record.get("prompt_id")
    known = {key: value for key, value in record.items() if key not in _OF_AN_IMAGE}
    return {"kind": "prompt", **known, "id": f"{number:05d}" if name is None else str(name)}


def _draft_fields(record: Mapping[str, Any]) -> Record:
    """What the new image's record says of its draft. Nothing else of the draft's verdict and scores is taken over.

    `draft_flops` includes the draft's own draft, so that `flops + draft_flops` is the cost of the whole chain.
    """
    known = {
        "draft_path": record["path"],
        "draft_score": record.get("judge_score"),
        "draft_steps": record.get("steps"),
        "draft_samples": record.get("samples"),
    }
    if record.get("flops") is not None:
        known["draft_flops"] = record["flops"] + (record.get("draft_flops") or 0)
    return {key: value for key, value in known.items() if value is not None}


class RedrawFolder(SampleFolder):
    """The chosen images of a sample folder, drawn from drafts.

    The folder is one of `sample` for the same prompts in the same order: a later `sample` draws the rest of its images.

    Args:
        folder: see `open_folder`.
        checkpoint, settings, seed, dtype: see `SampleFolder`.
        drafts: what to draw.
    """

    def __init__(
        self,
        folder: Path,
        checkpoint: Checkpoint,
        settings: SamplingSettings,
        drafts: Drafts,
        *,
        seed: int,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(folder, checkpoint, settings, drafts.prompts, count=1, seed=seed, dtype=dtype)
        self._drafts: Sequence[tuple[int, int, Record]] = drafts.images
        self._samples = Counter(place for place, _, _ in drafts.images)

    def __len__(self) -> int:
        return len(self._drafts)

    def record(self, number: int) -> Record:
        """The record of the drafts' image `number`. Its `samples` is the number of images redrawn for its prompt."""
        place, index, draft = self._drafts[number]
        return {**self._image(place, index, self._samples[place]), **draft}

    def place(self, number: int) -> tuple[int, int]:
        return self._drafts[number][:2]
