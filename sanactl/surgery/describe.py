"""The numbers of a plan, for `--dry-run`: sizes, FLOPs, and the memory for training the result."""

from __future__ import annotations

from typing import Any

from sanactl.checkpoint.metadata import encode_metadata
from sanactl.checkpoint.sana import expected_tensors
from sanactl.checkpoint.write import Plan
from sanactl.optim.table import OPTIMIZERS
from sanactl.surgery.memory import training_memory

__all__ = ["describe"]

_TEXT_TOKENS = 300  # SANA's longest caption, which `forward_flops` counts


def describe(plan: Plan) -> dict[str, Any]:
    """The numbers of a plan and of its parent, as the fields of a record.

    Returns:
        the fields of `Summary` (FLOPs are of one forward pass of one image); resolution ("1024x1024", None if unknown),
        image_tokens and text_tokens, for which the FLOPs are counted; and training_memory: for each optimizer, the bytes
        of fp32 weights, gradients and optimizer state of the result (`training_memory`).
    """
    shapes = expected_tensors(plan.config)
    resolution = encode_metadata(plan.config, sampling=plan.sampling).get("modelspec.resolution")
    return {
        **plan.summary().as_dict(),
        "resolution": resolution,
        "image_tokens": (plan.config["sample_size"] // plan.config["patch_size"]) ** 2,
        "text_tokens": _TEXT_TOKENS,
        "training_memory": {name: _without_ema(training_memory(shapes, name)) for name in OPTIMIZERS},
    }


def _without_ema(parts: dict[str, int]) -> dict[str, int]:
    return {key: value for key, value in parts.items() if key != "ema"}
