"""The three passes of `tiled` as Triton kernels: 3 reads of the gradient, 2 of the moment, 1 of the parameter.

Sums have a fixed order (no atomics), so a restart gives the same bits. tests/optim/test_triton.py compares the kernels
with the torch implementation, in Triton's interpreter.

Legend: R rows, C columns of the matrix; a program takes a tile of TR x TC values, or one 8-bit block of B values.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sanactl.optim.blockwise import TINY_RANGE, dynamic_map, dynamic_midpoints
from sanactl.optim.moment import Moment
from sanactl.optim.sharded import Part

__all__ = ["apply", "can_step", "residual_sums", "square_sums"]

TILE_ROWS, TILE_COLS = 64, 128
LARGEST_BLOCK = 16384  # values that one program keeps in registers
FP32, LINEAR, ZERO, DYNAMIC = 0, 1, 2, 3
# Fused multiply-adds would round differently from torch; they would gain nothing, since memory limits the speed.
LAUNCH = {"num_warps": 8, "enable_fp_fusion": False}
KINDS = {None: FP32, "linear": LINEAR, "zero": ZERO, "dynamic": DYNAMIC}


def can_step(p: Tensor, g: Tensor, m: Moment | None) -> bool:
    """Whether the kernels take this matrix: row-major, 1 to 2**31 - 1 values, with blocks that fit a program."""
    dense = p.is_contiguous() and g.is_contiguous() and 0 < g.numel() < 1 << 31
    return dense and p.dtype != torch.float64 and (m is None or m.block <= LARGEST_BLOCK)


def square_sums(g: Tensor) -> tuple[Tensor, Tensor]:
    """As `tiled.square_sums`."""
    rows, cols = g.shape
    grid, row_parts, col_parts = _parts(g, 1)
    with torch.cuda.device_of(g):
        _square_kernel[grid](g, row_parts, col_parts, rows, cols, TILE_ROWS, TILE_COLS, **LAUNCH)
    return row_parts[0].sum(0), col_parts[0].sum(0)


def residual_sums(
    g: Tensor, m: Moment, row: Tensor, col: Tensor, clip_threshold: float, part: Part
) -> tuple[Tensor, Tensor, Tensor]:
    """The same as `tiled.residual_sums`, with one pass instead of two.

    The factor k needs all of v = g col row, and u = k v. The pass sums d^2, d v and v^2 with d = v - m; then
    (k v - m)^2 = d^2 - 2 (1 - k) d v + (1 - k)^2 v^2, and most steps have k near 1, where nothing cancels.
    """
    rows, cols = g.shape
    grid, row_parts, col_parts = _parts(g, 3)
    with torch.cuda.device_of(g):
        _residual_kernel[grid](
            g, *_pointers(m), dynamic_map(g.device), row, col, row_parts, col_parts,
            rows, cols, m.block, m.phase, KINDS[m.scheme], TILE_ROWS, TILE_COLS, **LAUNCH,
        )  # fmt: skip
    row_dd, row_dv, row_vv = row_parts.sum(1)
    col_dd, col_dv, col_vv = col_parts.sum(1)
    rms = (part.sum(row_vv.sum()) / part.numel).sqrt()
    k = 1 / (rms / clip_threshold).clamp(min=1)
    short = 1 - k
    row_sums = row_dd - 2 * short * row_dv + short * short * row_vv
    col_sums = col_dd - 2 * short * col_dv + short * short * col_vv
    # Where v^2 overflowed, k is 0 and these are inf - inf: count them as nothing.
    return k, *(s.nan_to_num_(0.0, 0.0, 0.0).clamp_(min=0) for s in (row_sums, col_sums))


def apply(
    p: Tensor,
    g: Tensor,
    m: Moment,
    u_factors: tuple[Tensor, Tensor],
    step_factors: tuple[Tensor, Tensor],
    beta: float,
    decay: float,
    seed: int | None,
) -> None:
    """As `tiled.apply`."""
    block, phase = (2048, 0) if m.scheme is None else (m.block, m.phase)
    width = triton.next_power_of_2(min(block, phase + p.numel()))
    edges = u_factors[0] if m.edges is None else m.edges
    with torch.cuda.device_of(p):
        _apply_kernel[(triton.cdiv(phase + p.numel(), block),)](
            p, g, *_pointers(m), dynamic_map(p.device), dynamic_midpoints(p.device), *u_factors, *step_factors,
            edges, p.numel(), p.shape[1], block, phase, beta, decay, 0 if seed is None else seed,
            KINDS[m.scheme], m.edges is not None, seed is not None and p.dtype == torch.bfloat16, TINY_RANGE, width,
            **LAUNCH,
        )  # fmt: skip


def _parts(g: Tensor, sums: int) -> tuple[tuple[int, int], Tensor, Tensor]:
    """The grid of tiles, and memory for each tile's sums: [sums, tiles in a row, R], [sums, tiles in a column, C]."""
    rows, cols = g.shape
    grid = (triton.cdiv(rows, TILE_ROWS), triton.cdiv(cols, TILE_COLS))
    row_parts = torch.empty(sums, grid[1], rows, device=g.device)
    return grid, row_parts, torch.empty(sums, grid[0], cols, device=g.device)


def _pointers(m: Moment) -> tuple[Tensor, Tensor, Tensor]:
    """Values, scale and offset; if a scheme lacks one, its pointer is never read."""
    scale = m.values if m.scale is None else m.scale
    return m.values, scale, scale if m.offset is None else m.offset


@triton.jit
def _square_kernel(g_ptr, row_ptr, col_ptr, R, C, TR: tl.constexpr, TC: tl.constexpr):  # type: ignore[no-untyped-def]
    """Row sums and column sums of g^2 over one tile."""
    i = tl.program_id(0) * TR + tl.arange(0, TR)
    j = tl.program_id(1) * TC + tl.arange(0, TC)
    inside = (i < R)[:, None] & (j < C)[None, :]
    g = tl.load(g_ptr + i[:, None] * C + j[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(row_ptr + tl.program_id(1) * R + i, tl.sum(g * g, 1), mask=i < R)
    tl.store(col_ptr + tl.program_id(0) * C + j, tl.sum(g * g, 0), mask=j < C)


@triton.jit
def _read(m_ptr, scale_ptr, offset_ptr, map_ptr, at, block, phase, inside, KIND: tl.constexpr):  # type: ignore[no-untyped-def]
    """The first moments at the flat indices `at`, in fp32: `blockwise.dequantize`; the first block begins `phase` before."""
    if KIND == 0:
        m = tl.load(m_ptr + at, mask=inside, other=0.0)
    else:
        code = tl.load(m_ptr + at, mask=inside, other=0)
        n = (at + phase) // block
        scale = tl.load(scale_ptr + n, mask=inside, other=0.0)
        if KIND == 3:
            m = tl.load(map_ptr + code.to(tl.int32)) * scale
        else:
            offset = tl.load(offset_ptr + n, mask=inside, other=0).to(tl.float32)
            m = (code.to(tl.float32) - offset) * scale if KIND == 2 else code.to(tl.float32) * scale + offset
    return m


@triton.jit
def _residual_kernel(  # type: ignore[no-untyped-def]
    g_ptr, m_ptr, scale_ptr, offset_ptr, map_ptr, r_ptr, c_ptr, row_ptr, col_ptr, R, C, block, phase,
    KIND: tl.constexpr, TR: tl.constexpr, TC: tl.constexpr,
):  # fmt: skip
    """Row sums and column sums of d^2, d v, v^2 over one tile, with v = g c r and d = v - m."""
    i = tl.program_id(0) * TR + tl.arange(0, TR)
    j = tl.program_id(1) * TC + tl.arange(0, TC)
    inside = (i < R)[:, None] & (j < C)[None, :]
    at = i[:, None] * C + j[None, :]
    g = tl.load(g_ptr + at, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(c_ptr + j, mask=j < C, other=0.0)
    r = tl.load(r_ptr + i, mask=i < R, other=0.0)
    v = g * c[None, :] * r[:, None]
    d = v - _read(m_ptr, scale_ptr, offset_ptr, map_ptr, at, block, phase, inside, KIND)
    d = tl.where(inside, d, 0.0)
    row_ptr += tl.program_id(1) * R + i
    col_ptr += tl.program_id(0) * C + j
    row_step, col_step = tl.num_programs(1) * R, tl.num_programs(0) * C
    tl.store(row_ptr, tl.sum(d * d, 1), mask=i < R)
    tl.store(col_ptr, tl.sum(d * d, 0), mask=j < C)
    tl.store(row_ptr + row_step, tl.sum(d * v, 1), mask=i < R)
    tl.store(col_ptr + col_step, tl.sum(d * v, 0), mask=j < C)
    tl.store(row_ptr + 2 * row_step, tl.sum(v * v, 1), mask=i < R)
    tl.store(col_ptr + 2 * col_step, tl.sum(v * v, 0), mask=j < C)


@triton.jit
def _round(x):  # type: ignore[no-untyped-def]
    """Round to nearest, ties to even, for |x| < 2**22."""
    return (x + 12582912.0) - 12582912.0


@triton.jit
def _write(  # type: ignore[no-untyped-def]
    m_ptr, scale_ptr, offset_ptr, mid_ptr, m, at, inside, n, low, high, KIND: tl.constexpr, TINY: tl.constexpr
):  # fmt: skip
    """Keep the block n of first moments: `blockwise.quantize`. Others write values from low to high into it."""
    if KIND == 0:
        tl.store(m_ptr + at, m, mask=inside)
    elif KIND == 3:
        scale = tl.maximum(tl.max(tl.where(inside, tl.abs(m), 0.0)), tl.maximum(-low, high))
        unit = m / tl.where(scale > TINY, scale, 1.0)
        # Binary search: the number of midpoints below the value, 0 to 255.
        code = tl.zeros_like(unit).to(tl.int32)
        for bit in tl.static_range(7, -1, -1):
            code += tl.where(tl.load(mid_ptr + code + ((1 << bit) - 1)) < unit, 1 << bit, 0)
        tl.store(scale_ptr + n, scale)
        tl.store(m_ptr + at, code.to(tl.uint8), mask=inside)
    else:
        low = tl.minimum(tl.min(tl.where(inside, m, float("inf"))), low)
        high = tl.maximum(tl.max(tl.where(inside, m, float("-inf"))), high)
        if KIND == 2:
            low, high = tl.minimum(low, 0.0), tl.maximum(high, 0.0)
        scale = (high - low) / 255
        scale = tl.where(scale > TINY / 255, scale, 0.0)
        per = tl.where(scale > 0, 1 / tl.where(scale > 0, scale, 1.0), 0.0)
        tl.store(scale_ptr + n, scale)
        if KIND == 1:
            tl.store(offset_ptr + n, low)
            code = _round((m - low) * per)
        else:
            zero = _round(-low * per)
            tl.store(offset_ptr + n, zero.to(tl.uint8))
            code = _round(m * per) + zero
        code = tl.minimum(tl.maximum(code, 0.0), 255.0)
        tl.store(m_ptr + at, code.to(tl.uint8), mask=inside)


@triton.jit
def _noise(at, seed):  # type: ignore[no-untyped-def]
    """16 random bits for each flat index: `rounding._hash`."""
    h = at.to(tl.uint32) * 0x9E3779B9 + seed.to(tl.uint32)
    h = (h ^ (h >> 16)) * 0x85EBCA6B
    h = (h ^ (h >> 13)) * 0xC2B2AE35
    return ((h ^ (h >> 16)) & 0xFFFF).to(tl.int32)


@triton.jit(do_not_specialize=["seed"])
def _apply_kernel(  # type: ignore[no-untyped-def]
    p_ptr, g_ptr, m_ptr, scale_ptr, offset_ptr, map_ptr, mid_ptr, ur_ptr, uc_ptr, sr_ptr, sc_ptr, edge_ptr,
    size, C, block, phase, beta, decay, seed,
    KIND: tl.constexpr, EDGES: tl.constexpr, STOCHASTIC: tl.constexpr, TINY: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """u = g uc ur; m = beta m + (1 - beta) u; p = decay p - m sc sr; keep m: one 8-bit block."""
    n = tl.program_id(0)
    at = n * block - phase + tl.arange(0, B)
    inside = (tl.arange(0, B) < block) & (at >= 0) & (at < size)
    low, high = tl.full((), float("inf"), tl.float32), tl.full((), float("-inf"), tl.float32)
    if EDGES:
        last = tl.num_programs(0) - 1
        low = tl.load(edge_ptr, mask=n == 0, other=float("inf"))
        low = tl.minimum(low, tl.load(edge_ptr + 1, mask=n == last, other=float("inf")))
        high = tl.load(edge_ptr + 2, mask=n == 0, other=float("-inf"))
        high = tl.maximum(high, tl.load(edge_ptr + 3, mask=n == last, other=float("-inf")))
    i, j = at // C, at % C
    g = tl.load(g_ptr + at, mask=inside, other=0.0).to(tl.float32)
    u = g * tl.load(uc_ptr + j, mask=inside, other=0.0) * tl.load(ur_ptr + i, mask=inside, other=0.0)
    m = _read(m_ptr, scale_ptr, offset_ptr, map_ptr, at, block, phase, inside, KIND)
    m = m + (1 - beta) * (u - m)
    _write(m_ptr, scale_ptr, offset_ptr, mid_ptr, m, at, inside, n, low, high, KIND, TINY)
    step = m * tl.load(sc_ptr + j, mask=inside, other=0.0) * tl.load(sr_ptr + i, mask=inside, other=0.0)
    p = tl.load(p_ptr + at, mask=inside, other=0.0).to(tl.float32) * decay - step
    if p_ptr.dtype.element_ty == tl.bfloat16:
        # bf16 is the upper half of fp32: add noise, or just under a half (ties to even), and cut the lower half off.
        bits = p.to(tl.int32, bitcast=True)
        bits += _noise(at, seed) if STOCHASTIC else 0x7FFF + ((bits >> 16) & 1)
        p = (bits & -65536).to(tl.float32, bitcast=True)
    tl.store(p_ptr + at, p.to(p_ptr.dtype.element_ty), mask=inside)
