"""Block-wise quantization of an optimizer's first moment to 8 bits.

Three quantization schemes write a block of fp32 values as one byte a value and a few numbers a block:

- `linear`: the paper's equation 1 (section 2.3): 256 even levels from the block's minimum to its maximum. Zero is
  in general not one of them.
- `zero`: the same 256 even levels, shifted by less than one level so that zero is one of them (an integer zero
  point, as in quantised inference). Same size; an entry that is zero stays zero.
- `dynamic`: the dynamic map of "8-bit Optimizers via Block-wise Quantization" (Dettmers et al., 2021), scaled by the
  block's largest magnitude. Its levels thin out towards zero by decades, so that values a thousand times smaller
  than the block's largest keep their sign and one digit.

A tensor of n values in blocks of B has ceil(n / B) blocks of its flattened values; the last may be shorter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from sanactl.errors import UsageError

__all__ = [
    "SCHEMES",
    "Quantized",
    "Scheme",
    "check_scheme",
    "dequantize",
    "dynamic_map",
    "dynamic_midpoints",
    "per_device",
    "quantize",
]

T = TypeVar("T")
Scheme = Literal["linear", "zero", "dynamic"]
SCHEMES: tuple[Scheme, ...] = ("linear", "zero", "dynamic")

# A block whose values differ by less than this is stored as constant: 255 / range would overflow fp32.
TINY_RANGE = 1e-35


class Quantized(NamedTuple):
    """A tensor in 8 bits.

    Attributes:
        codes: uint8, the shape of the tensor that was quantised.
        scale: fp32 [blocks], the distance between two levels (`dynamic`: the block's largest magnitude).
        offset: `linear`: fp32 [blocks], the block's minimum; `zero`: uint8 [blocks], the code that means zero;
            `dynamic`: None.
    """

    codes: Tensor
    scale: Tensor
    offset: Tensor | None


def quantize(x: Tensor, block_size: int, scheme: Scheme) -> Quantized:
    """Quantize `x` to 8 bits.

    Args:
        x: finite values of any shape, at most 1.7e38 in magnitude; read as fp32.
        block_size: flattened values a block.
        scheme: one of `SCHEMES`.

    Returns:
        The codes and the numbers of each block. Constant blocks come back exactly (`dynamic`: zero and positive ones).

    Raises:
        UsageError: the scheme is unknown or the block size is not positive.
    """
    check_scheme(scheme, block_size)
    x_NB = _as_blocks(x.float(), block_size)
    if scheme == "dynamic":
        scale_N = x_NB.abs().amax(dim=1)
        unit_NB = x_NB / torch.where(scale_N > TINY_RANGE, scale_N, 1.0).unsqueeze(1)
        codes_NB = torch.bucketize(unit_NB, dynamic_midpoints(x.device), out_int32=True)
        offset_N = None
    else:
        low_N, high_N = x_NB.amin(dim=1), x_NB.amax(dim=1)
        if scheme == "zero":
            low_N, high_N = low_N.clamp(max=0), high_N.clamp(min=0)
        scale_N = (high_N - low_N) / 255
        scale_N = torch.where(scale_N > TINY_RANGE / 255, scale_N, 0.0)
        per_N = torch.where(scale_N > 0, 1 / scale_N, 0.0).unsqueeze(1)
        if scheme == "linear":
            offset_N = low_N
            codes_NB = ((x_NB - low_N.unsqueeze(1)) * per_N).round_()  # equation 1
        else:
            offset_N = (-low_N.unsqueeze(1) * per_N).round_().squeeze(1).to(torch.uint8)
            codes_NB = (x_NB * per_N).round_() + offset_N.unsqueeze(1)
        codes_NB = codes_NB.clamp_(0, 255)
    codes = codes_NB.to(torch.uint8).flatten()[: x.numel()].view(x.shape)
    return Quantized(codes, scale_N, offset_N)


def dequantize(q: Quantized, block_size: int, scheme: Scheme) -> Tensor:
    """The fp32 values of `q`, in the shape of its codes."""
    codes_NB = _as_blocks(q.codes, block_size)
    scale_N1 = q.scale.unsqueeze(1)
    if scheme == "dynamic":
        x_NB = dynamic_map(q.codes.device)[codes_NB.int()] * scale_N1
    elif scheme == "linear":
        assert q.offset is not None
        x_NB = codes_NB.float() * scale_N1 + q.offset.unsqueeze(1)
    else:
        assert q.offset is not None
        # The difference of two small integers is exact, so the zero code gives exactly 0.
        x_NB = (codes_NB.float() - q.offset.unsqueeze(1)) * scale_N1
    return x_NB.flatten()[: q.codes.numel()].view(q.codes.shape)


def check_scheme(scheme: str, block_size: int) -> None:
    """Raise UsageError unless `scheme` and `block_size` make sense."""
    if scheme not in SCHEMES:
        raise UsageError(f"unknown quantization scheme {scheme!r}", hint=f"use one of {', '.join(SCHEMES)}")
    if block_size < 1:
        raise UsageError(
            f"block_size is {block_size}", hint="it counts values: use 1 or more, 2048 in the paper"
        )


def _as_blocks(x: Tensor, block_size: int) -> Tensor:
    """`x` flattened to [blocks, block_size]; a shorter last block is padded with its own last value."""
    flat = x.reshape(-1)
    short = -flat.numel() % block_size
    if short and flat.numel():
        flat = torch.cat([flat, flat[-1:].expand(short)])
    return flat.view(-1, block_size)


def per_device(make: Callable[[torch.device], T]) -> Callable[[torch.device], T]:
    """Cache the result of `make` for each device. torch.compile cannot follow `functools.cache`."""
    made: dict[torch.device, T] = {}

    def kept(device: torch.device) -> T:
        if device not in made:
            made[device] = make(device)
        return made[device]

    kept.__doc__ = make.__doc__
    return kept


@per_device
def dynamic_map(device: torch.device) -> Tensor:
    """The signed dynamic map: 256 ascending fp32 levels in (-1, 1], zero and 1 among them.

    Seven decades from 1 down to 1e-6; the decade 10**-k is cut into 2**(6-k) even pieces on either side of zero,
    whose centres are the levels (Dettmers et al. 2021, section 1.3; the same numbers as bitsandbytes 0.50.2, which
    a test compares).
    """
    levels = [0.0, 1.0]
    for decade in range(7):
        pieces = 2**decade
        edges = torch.linspace(0.1, 1, pieces + 1, dtype=torch.float32)
        centres = (10 ** (decade - 6) * ((edges[:-1] + edges[1:]) / 2)).tolist()
        levels += centres + [-centre for centre in centres]
    return torch.tensor(sorted(levels), dtype=torch.float32, device=device)


@per_device
def dynamic_midpoints(device: torch.device) -> Tensor:
    """The 255 midpoints between adjacent levels; a value's code is the number of midpoints below it."""
    levels = dynamic_map(device)
    return (levels[:-1] + levels[1:]) / 2
