"""The Triton kernels by themselves: on one matrix as the functions of `tiled`, to compare the two; and ready to be timed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sanactl.optim import triton_step
from sanactl.optim.moment import Moment
from sanactl.optim.plan import Plan
from sanactl.optim.plan_fields import HYPERS, Chunk, Item
from sanactl.optim.sharded import Part, part_of

__all__ = ["Ready", "apply", "residual_sums", "square_sums"]


def square_sums(g: Tensor) -> tuple[Tensor, Tensor]:
    """As `tiled.square_sums`."""
    plan, chunk = _plan(g, g, Moment(g), torch.zeros((), device=g.device))
    triton_step.square_sums(plan, chunk, plan.space())
    return _lines(plan.lines, chunk, g)


def residual_sums(
    g: Tensor, m: Moment, row: Tensor, col: Tensor, clip_threshold: float, part: Part
) -> tuple[Tensor, Tensor, Tensor]:
    """As `tiled.residual_sums`, from the sums that one kernel makes."""
    plan, chunk = _plan(g, g, m, torch.zeros((), device=g.device))
    _put(plan.lines, chunk, row, col)
    space = plan.space()
    triton_step.residual_sums(plan, chunk, space)
    found = [_lines(sums, chunk, g) for sums in space[1].view(3, -1)]
    total = sum(
        (s.sum() for s in (found[0][0], 2 * found[1][0], found[2][0])), torch.zeros((), device=g.device)
    )
    rms = (part.sum(total).clamp(min=0) / part.numel).sqrt()
    k = 1 / (rms / clip_threshold).clamp(min=1)
    rows, cols = (
        (k * k * dd - 2 * k * (1 - k) * dm + (1 - k) ** 2 * mm).clamp(min=0)
        for dd, dm, mm in zip(*found, strict=True)
    )
    return k, rows, cols


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
    step = torch.zeros((), device=g.device)
    plan, chunk = _plan(p, g, m, step, None if seed is None or p.dtype != torch.bfloat16 else _base(seed))
    _put(plan.lines, chunk, *u_factors)
    steps = torch.zeros(chunk.rows + chunk.cols, device=g.device)
    _put(steps, chunk, *step_factors)
    settings = {"LR": 1.0, "BETA": beta, "RATE_M": 1 - beta, "DECAY": 1 - decay}
    plan.hyper.copy_(torch.tensor([[settings.get(name, 0.0) for name in HYPERS]]))
    triton_step.apply(plan, chunk, steps, m.edges)


def _plan(p: Tensor, g: Tensor, m: Moment, step: Tensor, base: int | None = None) -> tuple[Plan, Chunk]:
    plan = Plan([Item(p, g, m, (step,) * 4, step, part_of(p), 0, base)], 1, g.device)
    return plan, plan.chunks[0]


def _base(seed: int) -> int:
    """What gives this seed at step 0: `rounding.seed_at` backwards."""
    base = seed * pow(0xC2B2AE3D, -1, 1 << 32) % (1 << 32)
    return base ^ base >> 15 ^ base >> 30


def _put(lines: Tensor, chunk: Chunk, row: Tensor, col: Tensor) -> None:
    lines[: len(row)] = row
    lines[chunk.rows : chunk.rows + len(col)] = col


def _lines(lines: Tensor, chunk: Chunk, g: Tensor) -> tuple[Tensor, Tensor]:
    return lines[: g.shape[0]], lines[chunk.rows : chunk.rows + g.shape[1]]


class Ready:
    """The kernels with all of their tables, so that nothing but their launches is left to a call.

    Args:
        matrices: parameter, gradient and moment of matrices of one kind; together no more values than a chunk has.
    """

    def __init__(self, matrices: Sequence[tuple[Tensor, Tensor, Moment]]) -> None:
        device = matrices[0][1].device
        self._matrices = matrices  # the tables have pointers alone
        step = torch.zeros((), device=device)
        items = [Item(p, g, m, (step,) * 4, step, part_of(p), 0, None) for p, g, m in matrices]
        self._plan = Plan(items, 1, device)
        (self._chunk,) = self._plan.chunks
        self._space = self._plan.space()
        self._plan.lines.fill_(10.0)  # factors, for gradients of about 1e-3
        self._steps = torch.full((self._chunk.rows + self._chunk.cols,), 1e-3, device=device)
        settings = {"LR": 1.0, "BETA": 0.9, "RATE_M": 0.1}
        self._plan.hyper.copy_(torch.tensor([[settings.get(name, 0.0) for name in HYPERS]]))

    def square_sums(self) -> None:
        """Its sums take the place of the factors, so it comes last."""
        triton_step.square_sums(self._plan, self._chunk, self._space)

    def residual_sums(self) -> None:
        triton_step.residual_sums(self._plan, self._chunk, self._space)

    def apply(self) -> None:
        triton_step.apply(self._plan, self._chunk, self._steps)
