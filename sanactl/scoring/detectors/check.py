"""Whether a model gives on a device what it gives on the CPU in float64, before its scores are believed.

GenEval's official detector gave wrong scores on new GPUs without any error (geneval issue 15): an operation had no
kernel for the GPU and returned what was in memory.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sanactl.errors import InputError
from sanactl.files.content import json_digest
from sanactl.records.records import Record
from sanactl.records.scores import new_score
from sanactl.scoring.detectors.protocol import Detector

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = ["MOST", "Checked", "check_record", "ensure_checked"]

# The largest difference allowed: numbers are probabilities or parts of unit vectors.
MOST = 1e-3
# The checks themselves, in the name under which a passed check is remembered.
VERSION = 1


@runtime_checkable
class Checked(Protocol):
    """A model whose numbers can be checked: a detector, or a CLIP."""

    label: str
    digest: str
    device: torch.device
    dtype: torch.dtype

    def probe(self, images: Sequence[NDArray[np.uint8]]) -> Mapping[str, NDArray[np.float64]]:
        """Numbers from the last layers by name, of which every score is made.

        Of arrays of three axes the mean over the last one is compared: single pixels of a mask may differ.
        """

    def moved(self, device: torch.device, dtype: torch.dtype) -> Checked:
        """The same model on another device or in another dtype."""


def bundled_images() -> list[NDArray[np.uint8]]:
    """Two pictures of the built-in world, 256 px a side, always the same."""
    import numpy as np

    from sanactl.shapes.prompts import load_eval_prompts, scene_for
    from sanactl.shapes.render import render

    prompts = load_eval_prompts()
    ends = prompts[0], prompts[-1]
    return [render(scene_for(p, np.random.default_rng(seed)), 256) for seed, p in enumerate(ends)]


def differences(model: Checked) -> dict[str, float]:
    """The largest difference of each of the model's numbers from the CPU's in float64; infinity where it is NaN.

    A model in bf16 or fp16 is checked in fp32 on its device: its own rounding differs from model to model.
    """
    import numpy as np
    import torch

    images = bundled_images()
    own = model if model.dtype == torch.float32 else model.moved(model.device, torch.float32)
    found, exact = own.probe(images), model.moved(torch.device("cpu"), torch.float64).probe(images)
    result = {}
    for name, numbers in exact.items():
        apart = np.abs(found[name].astype(np.float64) - numbers)
        worst = float((apart.mean(-1) if apart.ndim == 3 else apart).max())
        result[name] = worst if np.isfinite(worst) else float("inf")
    return result


def check(model: Checked) -> dict[str, float]:
    """`differences`, remembered as passed.

    Raises:
        InputError: one is too large.
    """
    found = differences(model)
    for name, difference in found.items():
        if not difference <= MOST:
            raise InputError(
                f"{model.label}: its {name} on {place_of(model)} differ from the CPU's by {difference:.2g}, "
                f"at most {MOST:g} is allowed; scores would be wrong",
                hint="update torch and the driver, or score with --device cpu",
            )
    path = _mark(model)
    if path is not None:
        with contextlib.suppress(OSError):  # then the next run checks again
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch()
    return found


def ensure_checked(model: Any, tell: Any = None) -> None:
    """Checks a model once per machine and device, versions and weights; does nothing for what cannot be checked.

    Args:
        model: a detector or a CLIP.
        tell: called with a line before a check, which can take a minute on a CPU.

    Raises:
        InputError: a difference is too large.
    """
    if not isinstance(model, Checked):
        return
    path = _mark(model)
    if path is None or not path.exists():
        if tell is not None:
            tell(f"checking {model.label} on {place_of(model)} against the CPU in float64, once")
        check(model)


def place_of(model: Checked) -> str:
    """The device by name: "cpu", or "cuda (NVIDIA H100)"."""
    import torch

    if model.device.type != "cuda":
        return str(model.device)
    return f"{model.device} ({torch.cuda.get_device_name(model.device)})"


def _mark(model: Checked) -> Path | None:
    """The empty file that says that a check passed here; None where there is no cache folder."""
    import torch
    import transformers

    from sanactl.files.hash_cache import cache_folder

    folder = cache_folder()
    if folder is None:
        return None
    known = [
        VERSION,
        model.label,
        model.digest,
        getattr(model, "facts", {}).get("colors_digest"),
        place_of(model),
        platform.node(),
        platform.machine(),
        torch.__version__,
        transformers.__version__,
        os.environ.get("CUDA_VISIBLE_DEVICES"),
    ]
    return folder.parent / "checks" / json_digest(known)[:32]


def check_record(detector: Detector) -> Record:
    """A detector's check as a score record: its value is the largest difference, its tasks are the differences.

    A detector without a model is checked by what it finds in pictures of the built-in world.

    Raises:
        InputError: a difference is too large, or a picture is not recognised.
    """
    about: Record = {"detector": detector.label}
    if isinstance(detector, Checked):
        found = check(detector)
        about |= {"detector_digest": detector.digest, "device": place_of(detector)} | dict(
            getattr(detector, "facts", {})
        )
    else:
        found = {"pictures not recognised": float(_unrecognised(detector))}
    return new_score(
        "detector_check",
        max(found.values()),
        tasks={name: {"value": value} for name, value in found.items()},
        protocol="largest difference from the CPU in float64, on two pictures of the built-in world",
        **about,
    )


def _unrecognised(detector: Detector) -> int:
    """0, or an error that names the first picture in which the detector does not find what was drawn."""
    import numpy as np

    from sanactl.scoring.geneval.rules import TASKS, score_image
    from sanactl.shapes.prompts import load_eval_prompts, scene_for
    from sanactl.shapes.render import render

    prompts = load_eval_prompts()
    for task in TASKS:
        record = next(r for r in prompts if r["tag"] == task)
        image = render(scene_for(record, np.random.default_rng(0)), 64)
        verdict = score_image(detector.detect([image], detector.classes)[0], record)
        if not verdict["correct"]:
            raise InputError(
                f"{detector.label} does not find what was drawn for {record['prompt']!r}: {verdict['reason']}",
                hint="NumPy or the package is damaged; install both again",
            )
    return 0
