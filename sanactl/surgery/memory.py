"""What training a model keeps in memory beside its activations: weights, gradients, optimizer state, an average.

Arithmetic on shapes alone, without torch.
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
    """Bytes that training keeps from step to step, whatever the batch.

    Activations, temporaries of the optimizer's step, the text encoder and the autoencoder come on top, and are not
    counted; nor are the optimizer's step counters (4 bytes a tensor, on the CPU).

    Args:
        shapes: of the trainable parameters, by their diffusers names.
        optimizer: one of `sanactl.optim.table.OPTIMIZERS`, with its default settings.
        weight_bytes: of one weight as the optimizer holds it: 4 for fp32, 2 for bf16. bf16 autocast keeps fp32 weights.
        gradient_bytes: of one gradient.
        ema: whether an average of the weights is kept, in fp32.

    Returns:
        weights, gradients, optimizer, ema and total, in bytes.

    Raises:
        UsageError: no such optimizer.
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
