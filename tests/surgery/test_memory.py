"""The memory of training, held against what the real optimizers keep."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import SanaTransformer2DModel

from sanactl.bench.synthetic import SANA_1_6B, TINY
from sanactl.checkpoint.sana import expected_tensors
from sanactl.errors import UsageError
from sanactl.optim import OPTIMIZERS, build_optimizer
from sanactl.surgery.memory import training_memory

# Matrices on both sides of 16,384 values, tensors on both sides of 4,096, and blocks that do not come out even.
WIDE = {**TINY, "attention_head_dim": 67, "cross_attention_head_dim": 67, "cross_attention_dim": 134}


def kept(state: Any, seen: set[int]) -> int:
    """Bytes of all tensors but step counters; one that several states share counts once."""
    total = 0
    for values in state.values():
        for key, value in values.items():
            if key != "step" and isinstance(value, torch.Tensor) and id(value) not in seen:
                seen.add(id(value))
                total += value.numel() * value.element_size()
    return total


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_state_is_what_the_optimizer_keeps(optimizer: str, dtype: torch.dtype) -> None:
    if optimizer == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    model = SanaTransformer2DModel.from_config({**WIDE, "num_layers": 1}).to(dtype)
    built = build_optimizer(optimizer, model.parameters(), lr=1e-4)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    built.step()
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    size = dtype.itemsize
    planned = training_memory(shapes, optimizer, weight_bytes=size, gradient_bytes=size, ema=True)
    assert planned["optimizer"] == kept(built.state, set())
    count = sum(parameter.numel() for parameter in model.parameters())
    assert (planned["weights"], planned["gradients"], planned["ema"]) == (
        size * count,
        size * count,
        4 * count,
    )
    assert planned["total"] == sum(value for key, value in planned.items() if key != "total")


def test_an_unknown_optimizer_is_named() -> None:
    with pytest.raises(UsageError, match="came8bit"):
        training_memory({}, "sgd")


def test_came8bit_keeps_an_eighth_of_adamw_on_the_published_model() -> None:
    """Section 2.3: about 8 times less than AdamW in 32 bits."""
    shapes = expected_tensors({**SANA_1_6B})
    state = {name: training_memory(shapes, name)["optimizer"] for name in OPTIMIZERS}
    assert 7.5 < state["adamw"] / state["came8bit"] < 8
    assert state["came8bit"] < state["adamw8bit"] < state["came"] < state["adamw"]
