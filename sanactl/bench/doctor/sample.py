"""Images of the built-in base, against numbers that were stored when they were drawn elsewhere.

Other processors and versions of torch give other bits. The numbers are the mean and the standard deviation of each
channel of each image, and whether the detector finds what the prompt names. The images were chosen because they
change little: of 24 candidates, those that the detector finds right and that differ least between fp32 and bf16.

`python -m sanactl.bench.doctor.sample` draws and stores them anew, for a new built-in base.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sanactl.bench.doctor.finding import Finding, Place, ok, wrong
from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.open import open_checkpoint
from sanactl.files.atomic import atomic_path
from sanactl.files.content import files_digest

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from sanactl.records.records import Record

__all__ = ["STORED", "check_sample", "read_stored"]

STORED = Path(__file__).with_name("sample.json")
STEPS = 10  # half of the base's default; the images are as good
CANDIDATES, IMAGES = 24, 8
# The largest difference of a mean or a standard deviation, of pixel values from 0 to 255; and how many images may be
# found wrong. Between fp32 and bf16 on a CPU, the stored images differ by 0.13 at most. TF32 lies between.
MOST = {"fp32": (1.0, 0), "bf16": (3.0, 1)}
# The files that decide the images.
FILES = (
    "base.st",
    "text_encoder/model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "tokenizer/tokenizer.json",
)


def check_sample(place: Place) -> Iterator[Finding]:
    """Draws the images in fp32 and, on a GPU, also in bf16, which is the default there."""
    stored = read_stored(STORED)
    for dtype in ("fp32",) if place.device.type == "cpu" else ("fp32", "bf16"):
        yield _finding(draw(stored["images"], place.device, dtype), stored, place.device, dtype)


def read_stored(path: Path) -> dict[str, Any]:
    """`digest` of the files that decided the images; `apart`: their difference between fp32 and bf16; and `images`: a
    prompt record each, with `seed`, `mean`, `std`."""
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return stored


def draw(records: Sequence[Record], device: torch.device, dtype: str) -> NDArray[np.uint8]:
    """One image of the built-in base for each record's prompt and seed: uint8 [N, height, width, 3]."""
    from sanactl.model.conditioning import Sana, sampling_settings
    from sanactl.model.loading import resolve_dtype

    checkpoint = open_checkpoint(asset("base.st"))
    settings = replace(sampling_settings(checkpoint), steps=STEPS)
    sana = Sana(checkpoint, settings, device=device, dtype=resolve_dtype(dtype, device))
    drawn = list(sana.draw([r["prompt"] for r in records], [r["seed"] for r in records]))
    order = np.argsort([place for places, _ in drawn for place in places])
    found: NDArray[np.uint8] = np.concatenate([pixels for _, pixels in drawn])[order]
    return found


def _finding(images: NDArray[np.uint8], stored: dict[str, Any], device: torch.device, dtype: str) -> Finding:
    of = f"{device} {dtype}"
    most, most_missed = MOST[dtype]
    found = statistics(images)
    apart = max(float(np.abs(found[n] - [r[n] for r in stored["images"]]).max()) for n in found)
    missed = len(images) - sum(_right(images, stored["images"]))
    says = f"{len(images)} images: mean and spread of the channels differ by {apart:.2g} of 255 from the stored ones"
    if apart <= most and missed <= most_missed:
        return ok(of, says, apart)
    if missed:
        says += f", and the detector finds {missed} wrong"
    why = "images cannot be trusted"
    if files_digest([asset(name) for name in FILES]) != stored["digest"]:
        why = "the built-in world's files are not those that were installed; install sanactl again"
    return wrong(of, f"{says}, at most {most:g} is allowed; {why}", apart)


def statistics(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """`mean` and `std` of each channel of each image: [N, 3], in pixel values."""
    pixels = images.astype(np.float64)
    return {"mean": pixels.mean((1, 2)), "std": pixels.std((1, 2))}


def _right(images: NDArray[np.uint8], records: Sequence[Record]) -> list[bool]:
    from sanactl.scoring.detectors.shapes import detect_shapes
    from sanactl.scoring.geneval.rules import score_image

    pairs = zip(images, records, strict=True)
    return [bool(score_image(detect_shapes(image), record)["correct"]) for image, record in pairs]


def _store(path: Path) -> None:
    """Choose images, and store their numbers."""
    import torch

    from sanactl.model.sampler import image_seed
    from sanactl.scoring.geneval.rules import TASKS
    from sanactl.shapes.prompts import load_eval_prompts

    prompts = load_eval_prompts()
    each = [[p for p in prompts if p["tag"] == task] for task in TASKS]
    candidates = [of_task[n] for n in range(CANDIDATES // len(TASKS)) for of_task in each]
    candidates = [{**c, "seed": image_seed(0, c["prompt"], 0)} for c in candidates]
    cpu = torch.device("cpu")
    images, others = (draw(candidates, cpu, dtype) for dtype in ("fp32", "bf16"))
    found, other = statistics(images), statistics(others)
    apart = np.max([np.abs(found[n] - other[n]).max(1) for n in found], axis=0)
    right = np.logical_and(_right(images, candidates), _right(others, candidates))
    chosen = sorted(np.argsort(np.where(right, apart, np.inf))[:IMAGES].tolist())
    rows = [
        json.dumps({**candidates[i], **{n: found[n][i].round(2).tolist() for n in found}}) for i in chosen
    ]
    head = json.dumps(
        {
            "digest": files_digest([asset(name) for name in FILES]),
            "apart": round(float(apart[chosen].max()), 2),
        }
    )[:-1]
    text = f'{head}, "images": [\n' + ",\n".join(rows) + "\n]}\n"
    with atomic_path(path, force=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _store(STORED)
