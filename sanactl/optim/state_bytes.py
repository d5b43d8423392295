"""The size of each optimizer's state in bytes, computed from shapes without torch.

Tests compare it with the states of the real optimizers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["Shape", "adamw8bit_bytes", "adamw_bytes", "came8bit_bytes", "came_bytes"]

Shape = tuple[int, ...]

_FP32 = 4  # bytes
_CAME_BLOCK = 2048  # values that share one scale (SANA-1.5, section 2.3)
_CAME_MIN_8BIT = 16_384  # matrices of at most this many values keep an fp32 first moment
_ADAM_BLOCK = 256  # bitsandbytes' blocks
_ADAM_MIN_8BIT = 4096  # tensors of fewer values keep fp32 moments there
_ADAM_MAPS = 2 * 256 * _FP32  # bitsandbytes' two code tables, shared by all tensors


def adamw_bytes(shapes: Sequence[Shape], weight_bytes: int) -> int:
    """torch's AdamW: two moments of the weight's own dtype."""
    return sum(2 * weight_bytes * math.prod(shape) for shape in shapes)


def adamw8bit_bytes(shapes: Sequence[Shape], weight_bytes: int) -> int:
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


def came_bytes(shapes: Sequence[Shape], weight_bytes: int) -> int:
    """CAME: an fp32 first moment; rows and columns of two second moments for a matrix, all of one for the rest."""
    return sum(_FP32 * math.prod(shape) + _came_second(shape) for shape in shapes)


def came8bit_bytes(shapes: Sequence[Shape], weight_bytes: int) -> int:
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
