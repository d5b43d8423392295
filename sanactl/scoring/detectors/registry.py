"""The detectors by name, and how one is opened. Nothing heavy is imported before a detector is opened."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable

from sanactl.errors import UsageError
from sanactl.scoring.detectors.protocol import Detector

__all__ = ["DETECTORS", "open_detector"]

# Name to what opens it: a function or a class, or where one is found ("module:name"). It is called with the keywords
# `device` and `dtype`, names as the options have them, or None; with what follows the name and a colon, if anything
# does; and with `colors`, if that is given and it has such a parameter.
DETECTORS: dict[str, str | Callable[..., Detector]] = {
    "shapes": "sanactl.scoring.detectors.shapes:ShapesDetector",
    "mask2former": "sanactl.scoring.detectors.mask2former:Mask2FormerDetector",
}


def open_detector(
    spec: str, *, device: str | None = None, dtype: str | None = None, colors: str | None = None
) -> Detector:
    """The detector of a name.

    Args:
        spec: one of `DETECTORS`, or NAME:REST ("mask2former:folder") for a detector that takes more than its name.
        device: "cpu", "cuda", "cuda:1"...; None for the detector's own choice.
        dtype: "fp32", "bf16" or "fp16"; None for the detector's own choice.
        colors: what tells the colours of objects, for a detector that finds none; None for its own choice.

    Raises:
        UsageError: there is no detector, device or dtype of that name, or the detector does not take `colors` or REST.
        InputError: the detector's model cannot be used.
    """
    name, colon, rest = spec.partition(":")
    if name not in DETECTORS:
        raise UsageError(f"no detector {spec!r}", hint=f"there are: {', '.join(DETECTORS)}")
    if device is not None or dtype is not None:
        from sanactl.model.conditioning import pick_device
        from sanactl.model.loading import resolve_dtype

        resolve_dtype(dtype, pick_device(device))  # raises
    opener = DETECTORS[name]
    if isinstance(opener, str):
        module, _, attribute = opener.partition(":")
        opener = getattr(importlib.import_module(module), attribute)
    parameters = inspect.signature(opener).parameters.values()
    given = {"device": device, "dtype": dtype}
    if colors is not None:
        if "colors" not in {p.name for p in parameters}:
            raise UsageError(f"the detector {name} tells colours itself; it takes no --colors")
        given["colors"] = colors
    if colon and not any(p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in given for p in parameters):
        raise UsageError(f"the detector {name} takes nothing after its name", hint=f"write {name} for {spec}")
    detector: Detector = opener(*([rest] if colon else []), **given)
    return detector
