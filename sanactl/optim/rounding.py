"""Stochastic rounding of fp32 to bf16, the same draws on every device and after every restart."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["fingerprint", "seed_at", "seed_base", "seed_of", "stochastic_bf16"]

Number = TypeVar("Number", int, Tensor)


def seed_of(step: int, index: int, part: int = 0, identity: int = 0) -> int:
    """A 32-bit seed for part `part` of parameter `index` at `step`; it is the same after a restart.

    Args:
        identity: 32 bits of the parameter itself. Parameters of different optimizers can have the same index; this
            makes their seeds different.
    """
    return seed_at(step, seed_base(index, part, identity))


def seed_base(index: int, part: int = 0, identity: int = 0) -> int:
    """What `seed_of` takes from all but the step: 32 bits."""
    return ((index + 1) * 0x85EBCA77 ^ part * 0x27D4EB2F ^ identity) & 0xFFFFFFFF


def seed_at(step: Number, base: int) -> Number:
    """`seed_of` a step, which is a number or an int64 tensor, from the result of `seed_base`."""
    seed = (step * 0x9E3779B1 ^ base) & 0xFFFFFFFF
    seed = ((seed ^ seed >> 15) * 0xC2B2AE3D) & 0xFFFFFFFF
    return (seed ^ 0x80000000) - 0x80000000  # as a signed number


def fingerprint(p: Tensor) -> Tensor:
    """A hash of up to about 8,000 of a parameter's values and their places: int64 scalar, below 2**45, on its device."""
    flat = p.detach().reshape(-1)
    bits = flat[:: max(1, flat.numel() // 4096)].float().contiguous().view(torch.int32)
    places = torch.arange(bits.numel(), dtype=torch.int32, device=p.device)
    return (_hash(bits ^ _hash(places, 1), 0).long() & 0xFFFFFFFF).sum()


def stochastic_bf16(x: Tensor, seed: int | Tensor, first: int = 0) -> Tensor:
    """Round fp32 at random to one of the two nearest bf16 values; the closer one is more probable, and the mean is x.

    Args:
        x: finite fp32 values.
        seed: from `seed_of` or `seed_at`.
        first: index of x's first value in its parameter: value i draws from hash(first + i, seed), so that a
            parameter may be rounded in pieces.

    Returns:
        bf16 values of the same shape.
    """
    i = (
        torch.arange(first, first + x.numel(), dtype=torch.int64, device=x.device)
        .to(torch.int32)
        .view(x.shape)
    )
    noise = _hash(i, seed) & 0xFFFF
    # bf16 is the upper half of fp32: add noise to the lower half, then cut it off.
    return ((x.view(torch.int32) + noise) & -65536).view(torch.float32).to(torch.bfloat16)


def _hash(i: Tensor, seed: int | Tensor) -> Tensor:
    """Murmur3's finaliser on wrapping int32; its shifts are arithmetic here, so the sign bits are masked away."""
    h = i * -1640531527 + seed  # 0x9E3779B9
    h = (h ^ (h >> 16 & 0xFFFF)) * -2048144789  # 0x85EBCA6B
    h = (h ^ (h >> 13 & 0x7FFFF)) * -1028477387  # 0xC2B2AE35
    return h ^ (h >> 16 & 0xFFFF)
