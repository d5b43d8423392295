"""Entries whose gradient is always zero: 32-bit CAME leaves them alone, and so must 8 bits.

Min-max (equation 1) has no exact zero. What is left of a zero moment is divided by its own size in CAME's confidence
term, so that such entries move by about one learning rate a step.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sanactl.optim import build_optimizer

LR, STEPS = 1e-3, 50


def moved(name: str, **options: object) -> Tensor:
    """How far the entries of 40 dead columns and 10 dead rows of a trained [160, 200] matrix moved, in lr."""
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(160, 200, generator=generator) / 14)
    start, wanted = weight.detach().clone(), torch.randn(160, 160, generator=generator) / 14
    wanted[:10] = start[:10, :160]
    optimizer = build_optimizer(name, [("weight", weight)], LR, **options)
    for _ in range(STEPS):
        x = torch.randn(64, 200, generator=generator)
        x[:, 160:] = 0  # inputs that are never used
        error = x @ weight.t() - x[:, :160] @ wanted.t()
        error[:, :10] = error[:, :10].detach() * 0  # outputs that nothing asks for
        optimizer.zero_grad()
        error.square().sum(1).mean().backward()
        optimizer.step()
    dead = torch.zeros(160, 200, dtype=torch.bool)
    dead[:10], dead[:, 160:] = True, True
    return ((weight - start).abs() / LR)[dead]


@pytest.mark.parametrize("options", [("came",), ("came8bit", "zero"), ("came8bit", "dynamic")])
def test_dead_entries_stay(options: tuple[str, ...]) -> None:
    name, *scheme = options
    assert moved(name, **({"scheme": scheme[0]} if scheme else {})).max() == 0


def test_the_default_scheme_keeps_dead_entries() -> None:
    assert moved("came8bit").max() == 0


def test_min_max_moves_them() -> None:
    far = moved("came8bit", scheme="linear")
    assert far.mean() > STEPS / 2  # about a step each time, as if they had a gradient
