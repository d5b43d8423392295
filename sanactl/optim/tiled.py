"""The step of a matrix in plain torch: in place, with four passes over the gradient, in tiles that fit the cache.

The results are those of `reference.came_step`, up to the order of sums. `triton_kernels` has the same three functions for
GPUs. Names: p, g [R, C]; row factors [R], column factors [C]; m a `Moment`; u the normalised gradient.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sanactl.optim.moment import Moment, Scratch
from sanactl.optim.rounding import stochastic_bf16
from sanactl.optim.sharded import Part

__all__ = ["apply", "new_edges", "residual_sums", "square_sums"]

# Values of a tile. On a CPU a tile's buffers must stay in the cache: a step of a SANA-1.6B block takes 642, 588, 519,
# 525, 585, 969 ms of processor time with tiles of 2^16, 2^17, ... 2^20, 2^22. Elsewhere tiles only bound the memory.
CPU_TILE, OTHER_TILE = 1 << 18, 1 << 26


def square_sums(g: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of g squared: over each row [R], over each column [C], fp32."""
    rows, cols = g.shape
    row_sums, col_sums = torch.empty(rows, device=g.device), torch.zeros(cols, device=g.device)
    height = max(1, min(rows, _tile(g) // cols))
    square = torch.empty(height, cols, device=g.device)
    for first, last in _tiles(rows, height):
        s = _load(g[first:last], square[: last - first])
        torch.mul(s, s, out=square[: last - first])
        torch.sum(square[: last - first], 1, out=row_sums[first:last])
        col_sums += square[: last - first].sum(0)
    return row_sums, col_sums


def residual_sums(
    g: Tensor, m: Moment, row: Tensor, col: Tensor, clip_threshold: float, part: Part
) -> tuple[Tensor, Tensor, Tensor]:
    """The sums for the confidence: with u = k g col row and k <= 1 such that u's RMS is at most `clip_threshold`,

    k (a scalar tensor), and the sums of (u - m)^2 over each row [R] and each column [C]. Nothing is changed. The RMS
    is that of the whole matrix of which g is `part`, the sums are g's own.
    """
    tiles = m.tiles(_tile(g))
    buffer = _scratch(_height(tiles), g.shape[1], g)
    col2, power = col.square(), torch.empty_like(row)
    for first, last in tiles:
        s = _load(g[first:last], buffer.a[: last - first])
        torch.mul(s, s, out=buffer.a[: last - first])
        torch.mv(buffer.a[: last - first], col2, out=power[first:last])
    rms = part.sum((power.sqrt() * row).square().sum()).div(part.numel).sqrt()
    k = 1 / (rms / clip_threshold).clamp(min=1)

    row = row * k
    row_sums, col_sums = torch.empty_like(row), torch.zeros_like(col)
    for first, last in tiles:
        u = torch.mul(g[first:last], col, out=buffer.a[: last - first]).mul_(row[first:last, None])
        u.sub_(m.read(first, last, buffer.b[: last - first])).square_()
        torch.sum(u, 1, out=row_sums[first:last])
        col_sums += u.sum(0)
    return k, row_sums, col_sums


def apply(
    p: Tensor,
    g: Tensor,
    m: Moment,
    u_factors: tuple[Tensor, Tensor],
    step_factors: tuple[Tensor, Tensor],
    beta: float,
    decay: float | Tensor,
    seed: int | Tensor | None,
) -> None:
    """Change m and p in place: u = g times `u_factors` (row, column); m = beta m + (1 - beta) u;

    p = decay p - m times `step_factors`, with the fp32 m; then m is quantized again. `seed` asks for stochastic
    rounding of a bf16 p.
    """
    cols, tiles = g.shape[1], m.tiles(_tile(g))
    buffer = _scratch(_height(tiles), cols, g)
    (u_row, u_col), (s_row, s_col) = u_factors, step_factors
    for first, last in tiles:
        a, b, c = (t[: last - first] for t in buffer)
        u = torch.mul(g[first:last], u_col, out=a).mul_(u_row[first:last, None])
        new = m.read(first, last, b).lerp_(u, 1 - beta)
        step = torch.mul(new, s_col, out=a).mul_(s_row[first:last, None])
        m.write(first, last, new, c)
        change(p[first:last], step, decay, c, seed, first * cols)


def new_edges(g: Tensor, m: Moment, u_factors: tuple[Tensor, Tensor], beta: float) -> Tensor | None:
    """Smallest and largest [2, 2] of what `apply` will write into m's first and last block; None if m has no values."""
    if m.values.numel() == 0:
        return None
    places, cols = m.edge_places(), g.shape[1]
    u = g.reshape(-1)[places] * u_factors[1][places % cols] * u_factors[0][places // cols]
    new = m.edge_values(places).lerp_(u, 1 - beta)
    return torch.stack([new.amin(1), new.amax(1)])


def change(
    p: Tensor,
    step: Tensor,
    decay: float | Tensor,
    scratch: Tensor,
    seed: int | Tensor | None,
    first: int = 0,
) -> None:
    """p = decay p - step in place, in fp32 or better whatever p is; `first` is the index of p's first value in its parameter."""
    decays = isinstance(decay, Tensor) or decay != 1  # to compare a tensor would wait for the device
    if p.dtype in (torch.float32, torch.float64):
        if decays:
            p.mul_(decay)
        p.sub_(step)
        return
    wide = scratch.copy_(p)
    if decays:
        wide.mul_(decay)
    wide.sub_(step)
    p.copy_(wide if seed is None or p.dtype != torch.bfloat16 else stochastic_bf16(wide, seed, first))


def _load(g: Tensor, out: Tensor) -> Tensor:
    """g in fp32: itself, or a copy in `out`."""
    return g if g.dtype == torch.float32 else out.copy_(g)


def _tile(g: Tensor) -> int:
    return CPU_TILE if g.device.type == "cpu" else OTHER_TILE


def _tiles(rows: int, height: int) -> Iterator[tuple[int, int]]:
    for first in range(0, rows, height):
        yield first, min(first + height, rows)


def _height(tiles: list[tuple[int, int]]) -> int:
    return max([0] + [last - first for first, last in tiles])


def _scratch(height: int, cols: int, like: Tensor) -> Scratch:
    return Scratch(*torch.empty(3, height, cols, device=like.device))
