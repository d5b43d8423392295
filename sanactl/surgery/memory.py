"""What training a model keeps in memory beside its activations: weights, gradients, optimizer state, an average.

Arithmetic on shapes alone, without torch; tests hold it against the states of the real optimizers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from sanactl.errors import UsageError

__all__ = ["OPTIMIZERS", "training_memory"]

Shape = tuple[int, ...]

_FP32 = 4  # bytes
_CAME_BLOCK = 2048  # values that share one scale (SANA-1.5, section 2.3)
_CAME_MIN_8BIT = 16_384  # matrices of at most this many values keep an fp32 first moment
_ADAM_BLOCK = 256  # bitsandbytes' blocks
_ADAM_MIN_8BIT = 4096  # tensors of fewer values keep fp32 moments there
_ADAM_MAPS = 2 * 256 * _FP32  # bitsandbytes' two code tables, shared by all tensors


def training_memory(
    shapes: Mapping[str, Shape],
    optimizer: str,
    *,
    weight_bytes: int = 4,
    gradient_bytes: int = 4,
    ema: bool = False,
) -> dict[str, int]:
    """Bytes that training keeps from step to step, whatever the batch.

    Activations, temporaries of the optimizer's step, the text encoder and the autoencoder come on top, and are not
    counted; nor are the optimizer's step counters (4 bytes a tensor, on the CPU).

    Args:
        shapes: of the trainable parameters, by their diffusers names.
        optimizer: one of `OPTIMIZERS`, with its default settings.
        weight_bytes: of one weight as the optimizer holds it: 4 for fp32, 2 for bf16. bf16 autocast keeps fp32 weights.
        gradient_bytes: of one gradient.
        ema: whether an average of the weights is kept, in fp32.

    Returns:
        weights, gradients, optimizer, ema and total, in bytes.

    Raises:
        UsageError: no such optimizer.
    """
    if optimizer not in OPTIMIZERS:
        raise UsageError(f"unknown optimizer {optimizer!r}", hint=f"use one of {', '.join(OPTIMIZERS)}")
    parameters = sum(math.prod(shape) for shape in shapes.values())
    parts = {
        "weights": parameters * weight_bytes,
        "gradients": parameters * gradient_bytes,
        "optimizer": _STATES[optimizer](list(shapes.values()), weight_bytes),
        "ema": parameters * _FP32 if ema else 0,
    }
    return {**parts, "total": sum(parts.values())}


def _adamw(shapes: list[Shape], weight_bytes: int) -> int:
    """torch's AdamW: two moments of the weight's own dtype."""
    return sum(2 * weight_bytes * math.prod(shape) for shape in shapes)


def _adamw8bit(shapes: list[Shape], weight_bytes: int) -> int:
    """bitsandbytes' AdamW8bit: two moments of one byte a value, and an fp32 maximum for each block of 256."""
    total, maps = 0, 0
    for shape in shapes:
        size = math.prod(shape)
        if size < _ADAM_MIN_8BIT:
            total += 2 * _FP32 * size
        else:
            total += 2 * (size + _FP32 * -(-size // _ADAM_BLOCK))
            maps = _ADAM_MAPS
    return total + maps


def _came(shapes: list[Shape], weight_bytes: int) -> int:
    """CAME: an fp32 first moment; rows and columns of two second moments for a matrix, all of one for the rest."""
    return sum(_FP32 * math.prod(shape) + _came_second(shape) for shape in shapes)


def _came8bit(shapes: list[Shape], weight_bytes: int) -> int:
    """CAME-8bit: large matrices have a first moment of one byte a value, and 5 bytes (scale, zero) a block of 2048."""
    total = 0
    for shape in shapes:
        size = math.prod(shape)
        if _is_matrix(shape) and size > _CAME_MIN_8BIT:
            total += size + (_FP32 + 1) * -(-size // _CAME_BLOCK)
        else:
            total += _FP32 * size
        total += _came_second(shape)
    return total


def _came_second(shape: Shape) -> int:
    return _FP32 * (2 * (shape[0] + shape[1]) if _is_matrix(shape) else math.prod(shape))


def _is_matrix(shape: Shape) -> bool:
    """A linear weight or a 1x1 convolution; 3x3 and depth-wise ones are not factored."""
    return len(shape) >= 2 and all(side == 1 for side in shape[2:])


_STATES: Mapping[str, Callable[[list[Shape], int], int]] = {
    "came8bit": _came8bit,
    "came": _came,
    "adamw": _adamw,
    "adamw8bit": _adamw8bit,
}
OPTIMIZERS = tuple(_STATES)
