"""Synthetic checkpoints of any size, and the time and memory of surgery against `cp` and the diffusers script."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sanactl.io.ckpt_sana import CONFIG_DEFAULTS, check_config, expected_tensors
from sanactl.io.writer import Normal, Plan, PlannedTensor, write_checkpoint

__all__ = ["SANA_1_6B", "TINY", "synthetic_checkpoint", "synthetic_plan"]

SANA_1_6B: Mapping[str, Any] = {
    **CONFIG_DEFAULTS,
    "qk_norm": "rms_norm_across_heads",
}  # 20 blocks, 1.6 B parameters
TINY: Mapping[str, Any] = {
    **CONFIG_DEFAULTS, "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 8,
    "num_layers": 4, "num_cross_attention_heads": 2, "cross_attention_head_dim": 8, "cross_attention_dim": 16,
    "caption_channels": 12, "sample_size": 8, "qk_norm": "rms_norm_across_heads",
}  # fmt: skip


def synthetic_plan(
    config: Mapping[str, Any] = TINY, dtype: str = "F32", seed: int = 0, sigma: float = 0.1
) -> Plan:
    """The plan of a checkpoint of this shape with random weights N(0, sigma^2), for tests and measurements."""
    full = check_config({**config, "_class_name": "SanaTransformer2DModel"}, "the config")
    tensors = {
        name: PlannedTensor(dtype, shape, Normal(sigma, seed, name))
        for name, shape in expected_tensors(full).items()
    }
    return Plan(tensors, {key: value for key, value in full.items() if key != "_class_name"})


def synthetic_checkpoint(
    target: str | os.PathLike[str],
    config: Mapping[str, Any] = TINY,
    dtype: str = "F32",
    seed: int = 0,
    **options: Any,
) -> Path:
    """Write `synthetic_plan` to a file or folder; `options` go to `write_checkpoint`."""
    return write_checkpoint(synthetic_plan(config, dtype, seed), target, **options)
