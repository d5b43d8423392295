"""The numbers of rows and columns as Triton kernels: sums of partial sums, running means, factors.

A program sums a segment of lines, or works on all lines of one matrix. Names as in `triton_kernels`; a "side" is 0 for
rows, 1 for columns.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sanactl.optim.plan_fields import FIELDS, HYPERS
from sanactl.optim.triton_table import (
    ACROSS,
    BETA,
    COLS,
    LINE_C,
    LINE_R,
    LR,
    PARTS_C,
    PARTS_R,
    ROWS,
    STEP,
    WIDTH,
    setting,
)

__all__ = ["combine_kernel", "factors_kernel", "segment_kernel", "total_kernel", "verdict_kernel"]

SQ_ROW, SQ_COL = (tl.constexpr(FIELDS.index(name)) for name in ("ROW", "COL"))
RES_ROW, RES_COL = (tl.constexpr(FIELDS.index(name)) for name in ("RES_ROW", "RES_COL"))
WHOLE_ROWS, WHOLE_NUMEL = (tl.constexpr(FIELDS.index(name)) for name in ("WHOLE_ROWS", "WHOLE_NUMEL"))
DOWN = tl.constexpr(FIELDS.index("DOWN"))
CLIP, SIGN = (tl.constexpr(HYPERS.index(name)) for name in ("CLIP", "SIGN"))
RATE_SQ, RATE_RES = (tl.constexpr(HYPERS.index(name)) for name in ("RATE_SQ", "RATE_RES"))
EPS, EPS_RES = (tl.constexpr(HYPERS.index(name)) for name in ("EPS", "EPS_RES"))


@triton.jit(do_not_specialize=["line_r", "line_c", "part_step", "out_step"])
def segment_kernel(
    table, segments, parts, out, line_r, line_c, part_step, out_step,
    SUMS: tl.constexpr, LINES: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Sum the partial sums of LINES lines. In `out`, the first row and column are `line_r` and `line_c`."""
    at = segments + tl.program_id(0) * 3
    row = table + tl.load(at) * WIDTH
    cols = tl.load(at + 1) == 1
    i = tl.load(at + 2) + tl.arange(0, LINES)
    length = tl.load(row + tl.where(cols, COLS, ROWS)).to(tl.int32)
    count = tl.load(row + tl.where(cols, DOWN, ACROSS)).to(tl.int32)
    parts += tl.load(row + tl.where(cols, PARTS_C, PARTS_R))
    out += tl.load(row + tl.where(cols, LINE_C, LINE_R)) - tl.where(cols, line_c, line_r)
    for s in tl.static_range(SUMS):
        total = tl.zeros([LINES], tl.float32)
        for first in range(0, count, DEPTH):
            k = first + tl.arange(0, DEPTH)
            inside = (k < count)[:, None] & (i < length)[None, :]
            total += tl.sum(
                tl.load(parts + s * part_step + k[:, None] * length + i[None, :], mask=inside, other=0.0), 0
            )
        tl.store(out + s * out_step + i, total, mask=i < length)


@triton.jit
def _total(x, length, B: tl.constexpr):
    """The sum of `length` numbers."""
    total = tl.zeros([B], tl.float32)
    for first in range(0, length, B):
        i = first + tl.arange(0, B)
        total += tl.load(x + i, mask=i < length, other=0.0)
    return tl.sum(total)


@triton.jit
def total_kernel(table, lines, totals, SHARDED: tl.constexpr, B: tl.constexpr):
    """The sum over a matrix; of a sharded one, every process has the sums of all columns, but not of all rows."""
    k = tl.program_id(0)
    row = table + k * WIDTH
    if SHARDED:
        total = _total(lines + tl.load(row + LINE_C), tl.load(row + COLS).to(tl.int32), B)
    else:
        total = _total(lines + tl.load(row + LINE_R), tl.load(row + ROWS).to(tl.int32), B)
    tl.store(totals + k, total)


@triton.jit(do_not_specialize=["count", "most"])
def verdict_kernel(totals, count, most, ok, B: tl.constexpr):
    """ok = 1 where all totals are at most `most`, else 0. One program."""
    bad = 0
    for first in range(0, count, B):
        i = first + tl.arange(0, B)
        t = tl.load(totals + i, mask=i < count, other=0.0)
        bad += tl.sum(tl.where(t <= most, 0, 1))  # a NaN is bad
    tl.store(ok, tl.where(bad == 0, 1.0, 0.0))


@triton.jit
def _update_means(means, sums, length, per, eps, rate, keep, B: tl.constexpr):
    """Running means of lines: means += rate (sums / per + eps - means), also written over `sums`; their total."""
    total = tl.zeros([B], tl.float32)
    for first in range(0, length, B):
        i = first + tl.arange(0, B)
        inside = i < length
        old = tl.load(means + i, mask=inside, other=0.0)
        new = old + rate * (tl.load(sums + i, mask=inside, other=0.0) / per + eps - old)
        tl.store(means + i, new, mask=i < tl.where(keep, length, 0))
        tl.store(sums + i, new, mask=inside)
        total += tl.where(inside, new, 0.0)
    return tl.sum(total)


@triton.jit
def _inverse_roots(x, length, times, B: tl.constexpr):
    """x = times / sqrt(x) in place."""
    for first in range(0, length, B):
        i = first + tl.arange(0, B)
        tl.store(x + i, times * tl.rsqrt(tl.load(x + i, mask=i < length, other=1.0)), mask=i < length)


@triton.jit
def _factors(
    row, rows, cols, row_means, col_means, eps, rate, times, keep, SHARDED: tl.constexpr, B: tl.constexpr
):
    """As `update._factors`: sums in `rows` and `cols` become factors, those of rows times `times`."""
    R, C = tl.load(row + ROWS).to(tl.int32), tl.load(row + COLS).to(tl.int32)
    row_means = row_means.to(tl.pointer_type(tl.float32))
    col_means = col_means.to(tl.pointer_type(tl.float32))
    whole = tl.load(row + WHOLE_ROWS).to(tl.float32)
    row_total = _update_means(row_means, rows, R, C.to(tl.float32), eps, rate, keep, B)
    col_total = _update_means(col_means, cols, C, whole, eps, rate, keep, B)
    mean = col_total / C if SHARDED else row_total / R
    tl.debug_barrier()
    _inverse_roots(rows, R, times * tl.sqrt(mean), B)
    _inverse_roots(cols, C, 1.0, B)


@triton.jit
def factors_kernel(table, hyper, lines, ok, SHARDED: tl.constexpr, B: tl.constexpr):
    """The second moment of one matrix from its sums of g^2, which become the factors of u. Counts the step."""
    row = table + tl.program_id(0) * WIDTH
    rows, cols = lines + tl.load(row + LINE_R), lines + tl.load(row + LINE_C)
    keep = tl.load(ok) > 0
    _factors(
        row, rows, cols, tl.load(row + SQ_ROW), tl.load(row + SQ_COL), setting(hyper, row, EPS),
        setting(hyper, row, RATE_SQ), setting(hyper, row, SIGN), keep, SHARDED, B,
    )  # fmt: skip
    step = tl.load(row + STEP).to(tl.pointer_type(tl.float32))
    tl.store(step, tl.load(step) + 1, mask=keep)


@triton.jit
def _confidence(sums, length, step, k, scale, B: tl.constexpr):
    """The sums of (k v - m)^2, times `scale`, from those of d^2, d m and m^2; over those of d^2."""
    for first in range(0, length, B):
        i = first + tl.arange(0, B)
        inside = i < length
        dd = tl.load(sums + i, mask=inside, other=0.0)
        dm = tl.load(sums + step + i, mask=inside, other=0.0)
        mm = tl.load(sums + 2 * step + i, mask=inside, other=0.0)
        s = k * k * dd - 2 * k * (1 - k) * dm + (1 - k) * (1 - k) * mm
        # Where d^2 overflowed, k is 0 and this is no number: count it as nothing.
        s = tl.where(tl.abs(s) < float("inf"), s, 0.0)
        tl.store(sums + i, scale * tl.maximum(s, 0.0), mask=inside)


@triton.jit(do_not_specialize=["first", "line_r", "line_c", "step"])
def combine_kernel(
    table, first, hyper, lines, sums, line_r, line_c, step, ok, SHARDED: tl.constexpr, B: tl.constexpr
):
    """One matrix: k into the rows' factors of u; the instability's means; the factors of the step over the sums.

    `sums`: of d^2, d m and m^2, `step` apart, whose first row and column are `line_r` and `line_c`.
    """
    row = table + (first + tl.program_id(0)) * WIDTH
    R, C = tl.load(row + ROWS).to(tl.int32), tl.load(row + COLS).to(tl.int32)
    u_rows = lines + tl.load(row + LINE_R)
    rows, cols = sums + (tl.load(row + LINE_R) - line_r), sums + (tl.load(row + LINE_C) - line_c)
    keep = tl.load(ok) > 0
    side = cols if SHARDED else rows
    length = C if SHARDED else R
    # v^2 = (d + m)^2. It is smaller than m^2 only where k is 1.
    total = _total(side, length, B) + 2 * _total(side + step, length, B) + _total(side + 2 * step, length, B)
    total = tl.where(total == total, tl.maximum(total, 0.0), float("inf"))
    rms = tl.sqrt(total / tl.load(row + WHOLE_NUMEL).to(tl.float32))
    k = 1 / tl.maximum(rms / setting(hyper, row, CLIP), 1.0)
    beta = setting(hyper, row, BETA)
    for begin in range(0, R, B):
        i = begin + tl.arange(0, B)
        tl.store(u_rows + i, k * tl.load(u_rows + i, mask=i < R, other=0.0), mask=i < R)
    # u - (beta m + (1 - beta) u) = beta (u - m): the instability is known before the new moment is.
    _confidence(rows, R, step, k, beta * beta, B)
    _confidence(cols, C, step, k, beta * beta, B)
    tl.debug_barrier()
    _factors(
        row, rows, cols, tl.load(row + RES_ROW), tl.load(row + RES_COL), setting(hyper, row, EPS_RES),
        setting(hyper, row, RATE_RES), setting(hyper, row, LR), keep, SHARDED, B,
    )  # fmt: skip
