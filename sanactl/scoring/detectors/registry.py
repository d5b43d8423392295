"""The detectors by name, and how one is opened. Nothing heavy is imported before a detector is opened."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from sanactl.errors import UsageError
from sanactl.scoring.detectors.protocol import Detector

__all__ = ["DETECTORS", "open_detector"]

# Name to what opens it: a function or a class, or where one is found ("module:name"). It is called with the keywords
# `device` and `dtype`, names as the options have them, or None.
DETECTORS: dict[str, str | Callable[..., Detector]] = {
    "shapes": "sanactl.scoring.detectors.shapes:ShapesDetector",
}


def open_detector(name: str, *, device: str | None = None, dtype: str | None = None) -> Detector:
    """The detector of a name.

    Args:
        name: one of `DETECTORS`.
        device: "cpu", "cuda", "cuda:1"...; None for the detector's own choice.
        dtype: "fp32", "bf16" or "fp16"; None for the detector's own choice.

    Raises:
        UsageError: there is no detector, device or dtype of that name.
    """
    if name not in DETECTORS:
        raise UsageError(f"no detector {name!r}", hint=f"there are: {', '.join(DETECTORS)}")
    if device is not None or dtype is not None:
        from sanactl.model.conditioning import pick_device
        from sanactl.model.loading import resolve_dtype

        resolve_dtype(dtype, pick_device(device))  # raises
    opener = DETECTORS[name]
    if isinstance(opener, str):
        module, _, attribute = opener.partition(":")
        opener = getattr(importlib.import_module(module), attribute)
    detector: Detector = opener(device=device, dtype=dtype)
    return detector
