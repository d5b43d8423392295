"""The passes over whole matrices as Triton kernels: 3 reads of the gradient, 2 of the moment, 1 of the parameter.

A kernel works on all matrices of a `plan_fields.Chunk`; a program takes a tile of STRIP x TC values, TR rows at a time, or one
8-bit block. Sums have a fixed order (no atomics), so a restart gives the same bits. `tiled` has the same passes in torch,
and tests/optim/interpreted_kernels.py compares them in Triton's interpreter.

Legend: `table` and its fields as in `plan_fields.FIELDS`; R rows, C columns of the matrix; `ok` is 1, or 0 where the step must
change nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sanactl.optim.triton_table import (
    ACROSS,
    BLOCK,
    COLS,
    DECAY,
    LINE_C,
    LINE_R,
    LR,
    NUMEL,
    OFFSET,
    PARTS_C,
    PARTS_R,
    PHASE,
    RATE_M,
    ROWS,
    SCALE,
    SEED,
    STEP,
    TILE,
    WIDTH,
    G,
    M,
    P,
    number,
    own_phase,
    pointer,
    setting,
)

__all__ = ["apply_kernel", "edges_kernel", "noise", "residual_kernel", "round_to", "square_kernel"]


@triton.jit
def _tile(table, tile_of, STRIP: tl.constexpr, ALIGNED: tl.constexpr):
    """This program's row of the table, R, C, first and last row of its tile, and the tile's column and row of tiles."""
    n = tl.program_id(0)
    row = table + tl.load(tile_of + n) * WIDTH
    R, C = number(row, ROWS), number(row, COLS, ALIGNED)
    n -= number(row, TILE)
    across = number(row, ACROSS)
    down, beside = n // across, n % across
    first = down * STRIP
    return row, R, C, first, tl.minimum(first + STRIP, R), down, beside


@triton.jit
def square_kernel(
    table, tile_of, parts, GT: tl.constexpr, ALIGNED: tl.constexpr,
    TR: tl.constexpr, TC: tl.constexpr, STRIP: tl.constexpr,
):  # fmt: skip
    """Row sums and column sums of g^2 over one tile."""
    row, R, C, first, last, down, beside = _tile(table, tile_of, STRIP, ALIGNED)
    g_ptr = pointer(row, G, GT, ALIGNED)
    row_ptr = parts + tl.load(row + PARTS_R) + beside * R
    j = beside * TC + tl.arange(0, TC)
    col_sum = tl.zeros([TR, TC], tl.float32)
    for begin in range(first, last, TR):
        i = begin + tl.arange(0, TR)
        g = tl.load(
            g_ptr + (i[:, None] * C + j[None, :]), mask=(i < last)[:, None] & (j < C)[None, :], other=0.0
        )
        g = g.to(tl.float32)
        tl.store(row_ptr + i, tl.sum(g * g, 1), mask=i < last)
        col_sum += g * g
    tl.store(parts + tl.load(row + PARTS_C) + down * C + j, tl.sum(col_sum, 0), mask=j < C)


@triton.jit
def _restore(code, scale, offset, map_ptr, KIND: tl.constexpr):
    """First moments in fp32: `blockwise.dequantize`."""
    if KIND == 3:
        m = tl.load(map_ptr + code.to(tl.int32)) * scale
    elif KIND == 2:
        m = (code.to(tl.float32) - offset) * scale
    else:
        m = code.to(tl.float32) * scale + offset
    return m


@triton.jit
def _of_block(ptr, n, inside):
    return tl.load(ptr + n, mask=inside, other=0).to(tl.float32)


@triton.jit(do_not_specialize=["step"])
def residual_kernel(
    table, tile_of, lines, parts, step, map_ptr, ok,
    GT: tl.constexpr, OT: tl.constexpr, KIND: tl.constexpr, B: tl.constexpr, CUT: tl.constexpr,
    ALIGNED: tl.constexpr,    TR: tl.constexpr, TC: tl.constexpr, STRIP: tl.constexpr,
):  # fmt: skip
    """Row sums and column sums of d^2, d m, m^2 over one tile, with v = g c r and d = v - m.

    The clipping k needs all of v, and u = k v. So the sums of (u - m)^2 = (k d - (1 - k) m)^2 are those of these three, and
    nothing cancels where k is 1 or m is 0. `step` parts lie between the three sums. B is the size of an 8-bit block.
    """
    row, R, C, first, last, down, beside = _tile(table, tile_of, STRIP, ALIGNED)
    last = tl.where(tl.load(ok) > 0, last, first)
    g_ptr = pointer(row, G, GT, ALIGNED)
    m_ptr = pointer(row, M, tl.float32 if KIND == 0 else tl.uint8, ALIGNED)
    scale_ptr, offset_ptr = pointer(row, SCALE, tl.float32, False), pointer(row, OFFSET, OT, False)
    row_ptr = parts + tl.load(row + PARTS_R) + beside * R
    r_ptr = lines + tl.load(row + LINE_R)
    phase = own_phase(row, CUT, ALIGNED)
    j = beside * TC + tl.arange(0, TC)
    c = tl.load(lines + tl.load(row + LINE_C) + j, mask=j < C, other=0.0)
    dd, dm, mm = (
        tl.zeros([TR, TC], tl.float32),
        tl.zeros([TR, TC], tl.float32),
        tl.zeros([TR, TC], tl.float32),
    )
    for begin in range(first, last, TR):
        i = begin + tl.arange(0, TR)
        live = i < last
        inside = live[:, None] & (j < C)[None, :]
        at = i[:, None] * C + j[None, :]
        g = tl.load(g_ptr + at, mask=inside, other=0.0).to(tl.float32)
        m = tl.load(m_ptr + at, mask=inside, other=0)
        if KIND > 0:
            if B >= TC:  # then a row of the tile lies in two blocks at most
                n = (i * C + beside * TC + phase) // B
                here, after = live, live & ((n + 1) * B < R * C + phase)
                second = at >= ((n + 1) * B - phase)[:, None]
                scale = tl.where(
                    second,
                    _of_block(scale_ptr, n + 1, after)[:, None],
                    _of_block(scale_ptr, n, here)[:, None],
                )
                offset = tl.where(
                    second,
                    _of_block(offset_ptr, n + 1, after)[:, None],
                    _of_block(offset_ptr, n, here)[:, None],
                )
            else:
                scale, offset = (
                    _of_block(scale_ptr, (at + phase) // B, inside),
                    _of_block(offset_ptr, (at + phase) // B, inside),
                )
            m = _restore(m, scale, offset, map_ptr, KIND)
        v = g * c[None, :] * tl.load(r_ptr + i, mask=live, other=0.0)[:, None]
        m = tl.where(inside, m, 0.0)  # an offset is no zero
        d = v - m
        tl.store(row_ptr + i, tl.sum(d * d, 1), mask=live)
        tl.store(row_ptr + step + i, tl.sum(d * m, 1), mask=live)
        tl.store(row_ptr + 2 * step + i, tl.sum(m * m, 1), mask=live)
        dd += d * d
        dm += d * m
        mm += m * m
    col_ptr = parts + tl.load(row + PARTS_C) + down * C + j
    tl.store(col_ptr, tl.sum(dd, 0), mask=j < C)
    tl.store(col_ptr + step, tl.sum(dm, 0), mask=j < C)
    tl.store(col_ptr + 2 * step, tl.sum(mm, 0), mask=j < C)


@triton.jit
def _round(x):
    """Round to nearest, ties to even, for |x| < 2**22."""
    return (x + 12582912.0) - 12582912.0


@triton.jit
def _write(
    m_ptr, scale_ptr, offset_ptr, mid_ptr, m, at, inside, n, keep, low, high, KIND: tl.constexpr, TINY: tl.constexpr
):  # fmt: skip
    """Keep the block n of first moments: `blockwise.quantize`. Others write values from low to high into it."""
    if KIND == 3:
        scale = tl.maximum(tl.max(tl.where(inside, tl.abs(m), 0.0)), tl.maximum(-low, high))
        unit = m / tl.where(scale > TINY, scale, 1.0)
        # Binary search: the number of midpoints below the value, 0 to 255.
        code = tl.zeros_like(unit).to(tl.int32)
        for bit in tl.static_range(7, -1, -1):
            code += tl.where(tl.load(mid_ptr + code + ((1 << bit) - 1)) < unit, 1 << bit, 0)
        tl.store(scale_ptr + n, scale, mask=keep)
        tl.store(m_ptr + at, code.to(tl.uint8), mask=inside)
    else:
        low = tl.minimum(tl.min(tl.where(inside, m, float("inf"))), low)
        high = tl.maximum(tl.max(tl.where(inside, m, float("-inf"))), high)
        if KIND == 2:
            low, high = tl.minimum(low, 0.0), tl.maximum(high, 0.0)
        scale = (high - low) / 255
        scale = tl.where(scale > TINY / 255, scale, 0.0)
        per = tl.where(scale > 0, 1 / tl.where(scale > 0, scale, 1.0), 0.0)
        tl.store(scale_ptr + n, scale, mask=keep)
        if KIND == 1:
            tl.store(offset_ptr + n, low, mask=keep)
            code = _round((m - low) * per)
        else:
            zero = _round(-low * per)
            tl.store(offset_ptr + n, zero.to(tl.uint8), mask=keep)
            code = _round(m * per) + zero
        code = tl.minimum(tl.maximum(code, 0.0), 255.0)
        tl.store(m_ptr + at, code.to(tl.uint8), mask=inside)


@triton.jit(do_not_specialize=["first"])
def edges_kernel(
    table, first, hyper, lines, edges, map_ptr,
    GT: tl.constexpr, OT: tl.constexpr, KIND: tl.constexpr, BLOCKED: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Smallest and largest value that `apply_kernel` will write into the first and the last block: `tiled.new_edges`."""
    matrix, which = tl.program_id(0) // 2, tl.program_id(0) % 2
    row = table + (first + matrix) * WIDTH
    size, C, phase = number(row, NUMEL), number(row, COLS), number(row, PHASE)
    n = tl.where(which == 0, 0, (size + phase - 1) // BLOCKED)
    k = tl.arange(0, B)
    at = n * BLOCKED - phase + k
    inside = (k < BLOCKED) & (at >= 0) & (at < size)
    g = tl.load(pointer(row, G, GT, False) + at, mask=inside, other=0.0).to(tl.float32)
    u = g * tl.load(lines + tl.load(row + LINE_C) + at % C, mask=inside, other=0.0)
    u *= tl.load(lines + tl.load(row + LINE_R) + at // C, mask=inside, other=0.0)
    code = tl.load(pointer(row, M, tl.uint8, False) + at, mask=inside, other=0)
    scale = tl.load(pointer(row, SCALE, tl.float32, False) + n, mask=size > 0, other=0.0)
    offset = tl.load(pointer(row, OFFSET, OT, False) + n, mask=size > 0, other=0).to(tl.float32)
    m = _restore(code, scale, offset, map_ptr, KIND)
    m = m + setting(hyper, row, RATE_M) * (u - m)
    tl.store(edges + matrix * 4 + which, tl.min(tl.where(inside, m, float("inf"))))
    tl.store(edges + matrix * 4 + 2 + which, tl.max(tl.where(inside, m, float("-inf"))))


@triton.jit
def noise(at, row):
    """16 random bits for each flat index: `rounding._hash`, with the seed of `rounding.seed_of`."""
    step = tl.load(tl.load(row + STEP).to(tl.pointer_type(tl.float32))).to(tl.int32).to(tl.uint32)
    seed = (step * 0x9E3779B1) ^ tl.load(row + SEED).to(tl.uint32)
    seed = (seed ^ (seed >> 15)) * 0xC2B2AE3D
    h = at.to(tl.uint32) * 0x9E3779B9 + seed
    h = (h ^ (h >> 16)) * 0x85EBCA6B
    h = (h ^ (h >> 13)) * 0xC2B2AE35
    return ((h ^ (h >> 16)) & 0xFFFF).to(tl.int32)


@triton.jit
def round_to(p, at, row, PT: tl.constexpr, STOCHASTIC: tl.constexpr):
    """fp32 p in the parameter's dtype, at its flat indices."""
    if PT == tl.bfloat16:  # noqa: SIM300 (not a constant)
        # bf16 is the upper half of fp32: add noise, or just under a half (ties to even), and cut the lower half off.
        bits = p.to(tl.int32, bitcast=True)
        if STOCHASTIC:
            bits += noise(at, row)
        else:
            bits += 0x7FFF + ((bits >> 16) & 1)
        p = (bits & -65536).to(tl.float32, bitcast=True)
    return p.to(PT)


@triton.jit(do_not_specialize=["first", "line_r"])
def apply_kernel(
    table, first, block_of, hyper, lines, steps, line_r, line_c, edges, map_ptr, mid_ptr, ok,
    PT: tl.constexpr, GT: tl.constexpr, OT: tl.constexpr, KIND: tl.constexpr, BLOCKED: tl.constexpr,
    WIDE: tl.constexpr, CUT: tl.constexpr, EDGES: tl.constexpr, STOCHASTIC: tl.constexpr, ALIGNED: tl.constexpr, TINY: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """u = g uc ur; m = beta m + (1 - beta) u; p = decay p - m sc sr; keep m: one 8-bit block.

    The factors of u are in `lines`, those of the step in `steps`, whose first row and column are `line_r` and `line_c`. A
    block has BLOCKED values, B is the next power of two. `edges`: from the matrix `first` on, `moment.Moment.edges`.
    """
    row = table + tl.load(block_of + tl.program_id(0)) * WIDTH
    keep = tl.load(ok) > 0
    n = tl.program_id(0) - number(row, BLOCK)
    C = number(row, COLS, ALIGNED)
    begin, k = n * BLOCKED - own_phase(row, CUT, ALIGNED), tl.arange(0, B)
    at, end = begin + k, tl.where(keep, number(row, NUMEL), 0)
    u_row, u_col = lines + tl.load(row + LINE_R), lines + tl.multiple_of(tl.load(row + LINE_C), 16)
    s_row, s_col = (
        steps + (tl.load(row + LINE_R) - line_r),
        steps + tl.multiple_of(tl.load(row + LINE_C) - line_c, 16),
    )
    if WIDE:  # a block has values of two rows at most
        i = begin // C
        j = begin - i * C + k
        second = j >= C
        j = tl.where(second, j - C, j)
        there = (i + 1) * C < end
        ur = tl.where(second, tl.load(u_row + i + 1, mask=there, other=0.0), tl.load(u_row + i))
        sr = tl.where(second, tl.load(s_row + i + 1, mask=there, other=0.0), tl.load(s_row + i))
        if ALIGNED:
            end = tl.multiple_of(end, 16)
            j = tl.max_contiguous(tl.multiple_of(j, 16), 16)
        inside = (k < BLOCKED) & (at >= 0) & (at < end)
    else:
        inside = (k < BLOCKED) & (at >= 0) & (at < end)
        j = at % C
        ur = tl.load(u_row + at // C, mask=inside, other=0.0)
        sr = tl.load(s_row + at // C, mask=inside, other=0.0)
    g = tl.load(pointer(row, G, GT, ALIGNED) + at, mask=inside, other=0.0).to(tl.float32)
    u = g * tl.load(u_col + j, mask=inside, other=0.0) * ur
    m_ptr = pointer(row, M, tl.float32 if KIND == 0 else tl.uint8, ALIGNED)
    scale_ptr, offset_ptr = pointer(row, SCALE, tl.float32, False), pointer(row, OFFSET, OT, False)
    m = tl.load(m_ptr + at, mask=inside, other=0)
    if KIND > 0:
        m = _restore(m, _of_block(scale_ptr, n, keep), _of_block(offset_ptr, n, keep), map_ptr, KIND)
    m = m + setting(hyper, row, RATE_M) * (u - m)
    if KIND == 0:
        tl.store(m_ptr + at, m, mask=inside)
    else:
        low, high = tl.full((), float("inf"), tl.float32), tl.full((), float("-inf"), tl.float32)
        if EDGES:  # two numbers for the first block and two for the last
            edges += (tl.load(block_of + tl.program_id(0)) - first) * 4
            last = begin + BLOCKED >= number(row, NUMEL)
            low = tl.load(edges, mask=n == 0, other=float("inf"))
            low = tl.minimum(low, tl.load(edges + 1, mask=last, other=float("inf")))
            high = tl.load(edges + 2, mask=n == 0, other=float("-inf"))
            high = tl.maximum(high, tl.load(edges + 3, mask=last, other=float("-inf")))
        _write(m_ptr, scale_ptr, offset_ptr, mid_ptr, m, at, inside, n, keep, low, high, KIND, TINY)
    step = m * tl.load(s_col + j, mask=inside, other=0.0) * sr
    p_ptr = pointer(row, P, PT, ALIGNED)
    decay = 1 - setting(hyper, row, LR) * setting(hyper, row, DECAY)
    p = tl.load(p_ptr + at, mask=inside, other=0.0).to(tl.float32) * decay - step
    tl.store(p_ptr + at, round_to(p, at, row, PT, STOCHASTIC), mask=inside)
