"""New blocks: drawn at random, or computed from kept ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sanactl.checkpoint.table import Checkpoint
from sanactl.checkpoint.write import Blend, Bytes, Normal, Ones, PlannedTensor, TensorSource, Zeros
from sanactl.errors import UsageError
from sanactl.surgery.blocks import (
    block_name,
    check_float,
    is_attention_bias,
    is_output_projection,
    is_qk_norm,
)
from sanactl.surgery.layout import Mixed

__all__ = ["SIGMA", "SIGMA_DEPTHWISE", "SIGMA_NOISE", "Random", "mixed_block", "new_block"]

SIGMA = 0.02  # of a new block's weights; the paper gives no value, this one is from the reference code
SIGMA_DEPTHWISE = 0.2  # of its depth-wise 3x3 convolution (fan-in 9); also from the reference code
SIGMA_NOISE = 0.01  # of the reference's init_progressive
_DEPTHWISE = "ff.conv_depth."
_LARGEST = {
    "F16": 65504.0
}  # other dtypes have fp32's limit: values are drawn in fp32, and bf16's limit is only 0.4 % lower
_FP32_LARGEST = 3.38e38
_REACH = 8.0  # standard deviations; no random value is larger, see sanactl.checkpoint.generate


@dataclass(frozen=True)
class Random:
    """The seed and standard deviations of random weights; see `sanactl.surgery.grow.Growth`."""

    seed: int
    sigma: float = SIGMA
    sigma_depthwise: float = SIGMA_DEPTHWISE
    sigma_noise: float = SIGMA_NOISE


def new_block(checkpoint: Checkpoint, index: int, random: Random) -> dict[str, PlannedTensor]:
    """Block number `index` with random weights, and the shapes and dtypes of the parent's first block.

    It is the reference's strategy "constant" (the paper's partial preservation), but `plan_grow` adds the zeros of the
    output projections. QK norms are one, attention biases zero, the depth-wise convolution is drawn from
    N(0, sigma_depthwise^2), and everything else from N(0, sigma^2).
    """
    block = {}
    for name, ref in checkpoint.block_tensors(0).items():
        check_float(checkpoint, name, ref.dtype)
        source = _initial(name, index, random)
        if isinstance(source, Normal):
            option = "--sigma-depthwise" if name.startswith(_DEPTHWISE) else "--sigma"
            _check_range(option, source.sigma, ref.dtype)
        block[name] = PlannedTensor(ref.dtype, ref.shape, source)
    return block


def _initial(name: str, index: int, random: Random) -> TensorSource:
    if is_qk_norm(name) or name.startswith("norm2."):
        return Ones() if name.endswith(".weight") else Zeros()
    if is_attention_bias(name) or (is_output_projection(name) and name.endswith(".bias")):
        return Zeros()
    sigma = random.sigma_depthwise if name.startswith(_DEPTHWISE) else random.sigma
    return Normal(sigma, random.seed, block_name(index, name))


def mixed_block(checkpoint: Checkpoint, index: int, slot: Mixed, random: Random) -> dict[str, PlannedTensor]:
    """Block number `index`, computed from kept blocks.

    In the reference, progressive noise adds up from block to block. Here a block that is `steps` copies away gets one
    draw with the same variance, steps * sigma_noise^2. So a block depends only on its own name and the seed.
    """
    lower, upper = checkpoint.block_tensors(slot.lower), checkpoint.block_tensors(slot.upper)
    block = {}
    for name, ref in lower.items():
        check_float(checkpoint, name, ref.dtype)
        terms = [(Bytes((ref,)), 1.0 - slot.alpha)] if slot.alpha else [(Bytes((ref,)), 1.0)]
        if slot.alpha:
            terms.append((Bytes((upper[name],)), slot.alpha))
        noise = None
        if slot.steps:
            sigma = random.sigma_noise * math.sqrt(slot.steps)
            _check_range("--sigma-noise", random.sigma_noise, ref.dtype, math.sqrt(slot.steps))
            noise = Normal(sigma, random.seed, block_name(index, name))
        block[name] = PlannedTensor(ref.dtype, ref.shape, Blend(tuple(terms), noise))
    return block


def _check_range(option: str, sigma: float, dtype: str, times: float = 1.0) -> None:
    """Refuse a standard deviation if values of `times` this deviation can be too large for `dtype`."""
    most = _LARGEST.get(dtype, _FP32_LARGEST) / _REACH / times
    if sigma > most:
        raise UsageError(
            f"{option} {sigma:g} draws values that {dtype} weights cannot hold",
            hint=f"it takes at most {most:.4g} here; usual values are far below 1",
        )
