"""The memory for training a model without its activations: weights, gradients, optimizer state, average of weights.

It is computed from shapes, without torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from sanactl.optim.state_bytes import Shape
from sanactl.optim.table import find_optimizer

__all__ = ["training_memory"]

_FP32 = 4  # bytes


def training_memory(
    shapes: Mapping[str, Shape],
    optimizer: str,
    *,
    weight_bytes: int = 4,
    gradient_bytes: int = 4,
    ema: bool = False,
) -> dict[str, int]:
    """Bytes that training keeps from step to step; they do not depend on the batch size.

    Not counted are activations, temporary tensors of the optimizer's step, the text encoder, the autoencoder, and the
    optimizer's step counters (4 bytes a tensor, on the CPU).

    Args:
        shapes: of the trainable parameters, by their diffusers names.
        optimizer: one of `sanactl.optim.table.OPTIMIZERS`, with its default settings.
        weight_bytes: bytes of one weight in the optimizer: 4 for fp32, 2 for bf16. bf16 autocast keeps fp32 weights.
        gradient_bytes: bytes of the gradient of one weight.
        ema: whether an average of the weights is kept, in fp32.

    Returns:
        weights, gradients, optimizer, ema and total, in bytes.

    Raises:
        UsageError: the optimizer is unknown.
    """
    entry = find_optimizer(optimizer)
    parameters = sum(math.prod(shape) for shape in shapes.values())
    parts = {
        "weights": parameters * weight_bytes,
        "gradients": parameters * gradient_bytes,
        "optimizer": entry.state_bytes(list(shapes.values()), weight_bytes),
        "ema": parameters * _FP32 if ema else 0,
    }
    return {**parts, "total": sum(parts.values())}
