"""Places of values near the largest that the kernels take: a matrix of almost 2**31 values; run by `test_triton`.

Only its last tile and its last block are worked on, and only their memory is ever touched: the matrix takes 11 GB of
addresses and some pages. What must come out is what a matrix of its last two rows gives.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from sanactl.optim import triton_step
from sanactl.optim.blockwise import quantize
from sanactl.optim.moment import Moment
from sanactl.optim.plan import Plan
from sanactl.optim.plan_fields import FIELDS, HYPERS, STRIP, TILE_COLS, Chunk, Item
from sanactl.optim.sharded import part_of

BLOCK, LAST = 2048, 2
COLS = 32752
ROWS = 256 * STRIP + LAST
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


def ends_alone(chunk: Chunk) -> Chunk:
    """One program a kernel; `aim` makes it the last."""
    return chunk._replace(tile_of=chunk.tile_of[:1], block_of=chunk.block_of[:1])


def aim(plan: Plan, **first: int) -> None:
    """The first program is the one with this number: the numbers of a matrix's programs begin below zero."""
    for name, number in first.items():
        plan.table[0, FIELDS.index(name)] = -number


def test_the_last_values_of_a_large_matrix() -> None:
    assert triton_step.LARGEST_INDEX - (1 << 20) < ROWS * COLS
    generator = torch.Generator().manual_seed(0)
    tail = torch.randn(LAST, COLS, generator=generator).to(DEVICE)
    before = (ROWS - LAST) * COLS  # values before the last rows
    own = -(-(ROWS * COLS) // BLOCK) - before // BLOCK  # blocks that the last rows have values of
    q = quantize(torch.randn(own * BLOCK, generator=generator).to(DEVICE), BLOCK, "zero")
    assert q.offset is not None
    codes = q.codes[before % BLOCK :][: LAST * COLS].view(LAST, COLS)
    scale, offset = (
        torch.empty(before // BLOCK + own, dtype=t.dtype, device=DEVICE) for t in (q.scale, q.offset)
    )
    scale[-own:], offset[-own:] = q.scale, q.offset

    def large(values: Tensor) -> Tensor:
        whole = torch.empty(ROWS, COLS, dtype=values.dtype, device=DEVICE)
        whole[-LAST:] = values
        return whole

    p, g = large(tail.bfloat16()), large((tail * 1e-3).bfloat16())
    m = Moment(large(codes), scale, offset, BLOCK, "zero")
    assert triton_step.can_step(p, g, m)
    small_p, small_g = p[-LAST:].clone(), g[-LAST:].clone()
    small = Moment(codes.clone(), q.scale.clone(), q.offset.clone(), BLOCK, "zero", ROWS - LAST)
    step = torch.zeros((), device=DEVICE)
    found = []
    for tensors in ((p, g, m), (small_p, small_g, small)):
        plan = Plan(
            [Item(*tensors, (step,) * 4, step, part_of(tensors[0]), 0, None)], 1, torch.device(DEVICE)
        )
        chunk, rows = plan.chunks[0], tensors[1].shape[0]
        lines, steps = plan.lines, torch.zeros(plan.chunks[0].rows + plan.chunks[0].cols, device=DEVICE)
        for numbers, factor in ((lines, 2.0), (steps, 0.5)):
            numbers[rows - LAST : rows] = torch.tensor([3.0, 5.0]) * factor
            numbers[chunk.rows : chunk.rows + COLS] = torch.arange(COLS) % 7 + factor
        settings = {"LR": 1.0, "BETA": 0.9, "RATE_M": 0.1, "DECAY": 0.01}
        plan.hyper.copy_(torch.tensor([[settings.get(name, 0.0) for name in HYPERS]]))
        space = plan.space()
        tiles, blocks = chunk.tile_of.numel(), chunk.block_of.numel()
        aim(plan, TILE=tiles - 1, BLOCK=blocks - 1)
        one = ends_alone(chunk)
        without = one._replace(segments=chunk.segments[:0])
        across = -(-COLS // TILE_COLS)
        last_rows = slice(
            (across - 1) * rows + rows - LAST, across * rows
        )  # sums of the last column of tiles
        last_cols = slice(chunk.parts - TILE_COLS + (across * TILE_COLS - COLS), chunk.parts)
        sums = []
        triton_step.square_sums(plan, without, space)
        sums += [space[0][last_rows].clone(), space[0][last_cols].clone()]
        triton_step.residual_sums(plan, without, space)
        for k in range(3):
            part = space[0][k * chunk.parts :]
            sums += [part[last_rows].clone(), part[last_cols].clone()]
        triton_step.apply(plan, one, steps)
        found.append(sums)
    for ours, wanted in zip(*found, strict=True):
        assert ours.abs().sum() > 0
        assert torch.equal(ours, wanted)
    assert small.scale is not None and small.offset is not None
    end = LAST * COLS - (ROWS * COLS) % BLOCK  # the last block begins here
    assert (ROWS * COLS) % BLOCK and not torch.equal(small_p[-1, -100:], tail.bfloat16()[-1, -100:])
    assert torch.equal(p[-LAST:], small_p)
    assert torch.equal(m.values[-LAST:], small.values)
    assert torch.equal(scale[-1:], small.scale[-1:]) and torch.equal(offset[-1:], small.offset[-1:])
    assert torch.equal(small_p.view(-1)[:end], tail.bfloat16().view(-1)[:end])  # one block was worked on


@pytest.mark.parametrize("shape", [(ROWS + 30, COLS), (2**30, 1)])
def test_larger_ones_are_left_to_torch(shape: tuple[int, int]) -> None:
    x = torch.empty(shape, dtype=torch.bfloat16, device="meta")
    assert not triton_step.can_step(x, x, Moment(x))
    x = torch.empty(shape[0] // 4, shape[1], dtype=torch.bfloat16, device="meta")
    assert triton_step.can_step(x, x, Moment(x))
