"""Parameters with an unfactored second moment as Triton kernels: norms of gradients, second moments, steps.

A program takes B values of one parameter, or sums the partial sums of one. Names as in `triton_kernels`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sanactl.optim.plan_fields import FIELDS, HYPERS
from sanactl.optim.triton_kernels import round_to
from sanactl.optim.triton_table import (
    DECAY,
    LR,
    NUMEL,
    RATE_M,
    STEP,
    TILE,
    WIDTH,
    G,
    M,
    P,
    setting,
)

__all__ = ["part_kernel", "vector_apply_kernel", "vector_moment_kernel", "vector_square_kernel"]

SECOND, WHOLE_NUMEL = (tl.constexpr(FIELDS.index(name)) for name in ("ROW", "WHOLE_NUMEL"))
RATE_SQ, EPS, CLIP, SIGN = (tl.constexpr(HYPERS.index(name)) for name in ("RATE_SQ", "EPS", "CLIP", "SIGN"))


@triton.jit
def _place(table, program_of, B: tl.constexpr):
    """This program's row of the table, and its indices."""
    row = table + tl.load(program_of + tl.program_id(0)) * WIDTH
    at = (tl.program_id(0) - tl.load(row + TILE).to(tl.int32)) * B + tl.arange(0, B)
    return row, at


@triton.jit
def vector_square_kernel(table, program_of, parts, GT: tl.constexpr, B: tl.constexpr):
    """Partial sums of g^2."""
    row, at = _place(table, program_of, B)
    g = tl.load(tl.load(row + G).to(tl.pointer_type(GT)) + at, mask=at < tl.load(row + NUMEL), other=0.0)
    g = g.to(tl.float32)
    tl.store(parts + tl.program_id(0), tl.sum(g * g))


@triton.jit(do_not_specialize=["first", "out"])
def part_kernel(table, first, parts, out, ok, COUNTS: tl.constexpr, B: tl.constexpr, SUM: tl.constexpr):
    """The sum of one parameter's partial sums, of which each is of B values. COUNTS: counts the step, too."""
    row = table + (first + tl.program_id(0)) * WIDTH
    count = (tl.load(row + NUMEL).to(tl.int32) + B - 1) // B
    parts += tl.load(row + TILE)
    total = tl.zeros([SUM], tl.float32)
    for begin in range(0, count, SUM):
        i = begin + tl.arange(0, SUM)
        total += tl.load(parts + i, mask=i < count, other=0.0)
    tl.store(out + tl.program_id(0), tl.sum(total))
    if COUNTS:
        step = tl.load(row + STEP).to(tl.pointer_type(tl.float32))
        tl.store(step, tl.load(step) + 1, mask=tl.load(ok) > 0)


@triton.jit
def vector_moment_kernel(table, program_of, hyper, parts, ok, GT: tl.constexpr, B: tl.constexpr):
    """The second moment, and partial sums of u^2 with u = g / sqrt(second moment)."""
    row, at = _place(table, program_of, B)
    inside = at < tl.where(tl.load(ok) > 0, tl.load(row + NUMEL), 0)
    g = tl.load(tl.load(row + G).to(tl.pointer_type(GT)) + at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(row + SECOND).to(tl.pointer_type(tl.float32)) + at
    v = tl.load(second, mask=inside, other=1.0)
    v += setting(hyper, row, RATE_SQ) * (g * g + setting(hyper, row, EPS) - v)
    tl.store(second, v, mask=inside)
    u = g * tl.rsqrt(v)
    tl.store(parts + tl.program_id(0), tl.sum(tl.where(inside, u * u, 0.0)))


@triton.jit(do_not_specialize=["first"])
def vector_apply_kernel(
    table, first, program_of, hyper, power, ok,
    PT: tl.constexpr, GT: tl.constexpr, STOCHASTIC: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """m = beta m + (1 - beta) u / max(1, RMS(u) / clip); p = decay p - lr m. `power` has the sums of u^2."""
    row, at = _place(table, program_of, B)
    inside = at < tl.where(tl.load(ok) > 0, tl.load(row + NUMEL), 0)
    total = tl.load(power + tl.load(program_of + tl.program_id(0)) - first)
    rms = tl.sqrt(total / tl.load(row + WHOLE_NUMEL).to(tl.float32))
    g = tl.load(tl.load(row + G).to(tl.pointer_type(GT)) + at, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(tl.load(row + SECOND).to(tl.pointer_type(tl.float32)) + at, mask=inside, other=1.0)
    u = g * setting(hyper, row, SIGN) * tl.rsqrt(v) / tl.maximum(rms / setting(hyper, row, CLIP), 1.0)
    m_ptr = tl.load(row + M).to(tl.pointer_type(tl.float32)) + at
    m = tl.load(m_ptr, mask=inside, other=0.0)
    m += setting(hyper, row, RATE_M) * (u - m)
    tl.store(m_ptr, m, mask=inside)
    p_ptr = tl.load(row + P).to(tl.pointer_type(PT)) + at
    lr = setting(hyper, row, LR)
    p = tl.load(p_ptr, mask=inside, other=0.0).to(tl.float32) * (1 - lr * setting(hyper, row, DECAY)) - lr * m
    tl.store(p_ptr, round_to(p, at, row, PT, STOCHASTIC), mask=inside)
