"""One optimizer step over many parameters in torch: check all gradients, then update one parameter after the other.

This module computes the numbers of rows and columns; the passes over whole matrices are in `tiled`. `masked` takes the
same steps without a read from the device, on GPUs by Triton kernels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sanactl.errors import TrainingError, UsageError
from sanactl.optim import tiled
from sanactl.optim.moment import Moment
from sanactl.optim.reference import Hyper
from sanactl.optim.sharded import Part, local, part_of, share_edges
from sanactl.optim.state import Entry, as_matrix, is_matrix, moment_of

__all__ = ["LARGEST_GRAD_NORM", "Sums", "check_gradients", "check_layout", "refuse", "sums_of", "update"]

# A larger norm means divergence; with a smaller norm, no intermediate result of a step overflows fp32.
LARGEST_GRAD_NORM = 1e15


class Sums(NamedTuple):
    """Sums of the squared gradient: over all of it; over rows and columns, for matrices."""

    total: Tensor
    rows: Tensor | None = None
    cols: Tensor | None = None


def check_gradients(work: list[Entry]) -> list[Sums]:
    """The sums of squares of every gradient, after a check that all are finite: one transfer from each device.

    Raises:
        TrainingError: a gradient contains inf or NaN, or its norm is above 1e15. The message names the first parameter.
        UsageError: a gradient is sparse.
    """
    found = [sums_of(entry) for entry in work]
    for device in {entry.p.device for entry in work}:
        here = [i for i, entry in enumerate(work) if entry.p.device == device]
        totals = torch.stack([found[i].total for i in here]).tolist()
        for i, total in zip(here, totals, strict=True):
            refuse(work[i], total)
    return found


def refuse(entry: Entry, total: float) -> None:
    """Raise TrainingError if `total`, the sum of squares of its gradient, is too large or no number."""
    if total <= LARGEST_GRAD_NORM**2:
        return
    g = entry.p.grad
    assert g is not None
    bad = part_of(entry.p).sum((~torch.isfinite(local(g))).sum())
    fault = "contains inf or NaN" if bad.item() else "has a norm above 1e15"
    raise TrainingError(
        f"the gradient of {entry.name} {fault}: the step was refused, nothing was changed",
        hint="lower the learning rate, clip the gradients, or check the model's dtype",
    )


def update(entry: Entry, state: dict[str, Tensor], sums: Sums, h: Hyper, seed: int | Tensor | None) -> None:
    """One step of one parameter and its state, in place. Same arithmetic as `reference.came_step`."""
    assert entry.p.grad is not None
    p, g, part = local(entry.p), local(entry.p.grad), part_of(entry.p)
    if sums.rows is None or sums.cols is None:
        _update_unfactored(p, g, state, part, h, seed)
    else:
        m = moment_of(entry.p, state, entry.group)
        _update_matrix(as_matrix(p), as_matrix(g), m, state, (sums.rows, sums.cols), part, h, seed)


def _update_matrix(
    p: Tensor,
    g: Tensor,
    m: Moment,
    state: dict[str, Tensor],
    square_sums: tuple[Tensor, Tensor],
    part: Part,
    h: Hyper,
    seed: int | Tensor | None,
) -> None:
    b1, b2, b3 = h.betas
    row, col = _factors(state, "exp_avg_sq", square_sums, part, h.eps[0], b2)
    row = -row if h.maximize else row  # and so the sign of u = g col row, with no copy of g
    k, row_sums, col_sums = tiled.residual_sums(g, m, row, col, h.clip_threshold, part)
    # u - (b1 m + (1 - b1) u) = b1 (u - m): the instability is known before the new moment is.
    res_sums = (b1 * b1 * row_sums, b1 * b1 * part.sum(col_sums))
    s_row, s_col = _factors(state, "exp_avg_res", res_sums, part, h.eps[1], b3)
    u_factors = (row * k, col)
    if part.group is not None and m.scheme is not None:
        m = m._replace(edges=share_edges(tiled.new_edges(g, m, u_factors, b1), part, m.block, g.device))
    tiled.apply(p, g, m, u_factors, (s_row * h.lr, s_col), b1, _decay(h), seed)


def _factors(
    state: dict[str, Tensor], name: str, sums: tuple[Tensor, Tensor], part: Part, eps: float, beta: float
) -> tuple[Tensor, Tensor]:
    """Update the running means of rows and columns in place, and give `reference.factor` of them as [R], [C].

    The sums over columns are those of the whole matrix, R is the rows of this part of it.
    """
    rows, cols = local(state[f"{name}_row"]), state[f"{name}_col"]
    rows.lerp_(sums[0] / cols.numel() + eps, 1 - beta)
    cols.lerp_(sums[1] / part.rows + eps, 1 - beta)
    # The mean of the row means is the mean of the column means, of which every process has all.
    mean = (rows if part.group is None else cols).mean()
    return mean.sqrt() * rows.rsqrt(), cols.rsqrt()


def _update_unfactored(
    p: Tensor, g: Tensor, state: dict[str, Tensor], part: Part, h: Hyper, seed: int | Tensor | None
) -> None:
    b1, b2, _ = h.betas
    m, v = local(state["exp_avg"]), local(state["exp_avg_sq"])
    g = g.float()
    v.lerp_(g.square().add_(h.eps[0]), 1 - b2)
    u = v.rsqrt().mul_(-g if h.maximize else g)
    rms = _square_norm(u, part).sqrt() / part.numel**0.5
    m.lerp_(u.div_((rms / h.clip_threshold).clamp(min=1)), 1 - b1)
    torch.mul(m, h.lr, out=u)
    tiled.change(p, u, _decay(h), torch.empty_like(u), seed)


def _decay(h: Hyper) -> float | Tensor:
    return 1 - h.lr * h.weight_decay if h.weight_decay else 1.0


def check_layout(entry: Entry) -> Tensor:
    """The gradient of a parameter that has one.

    Raises:
        UsageError: it is sparse.
    """
    g = entry.p.grad
    assert g is not None
    if g.layout != torch.strided:
        raise UsageError(
            f"CAME does not take sparse gradients, and {entry.name} has one",
            hint="build the embedding with sparse=False",
        )
    return g


def sums_of(entry: Entry) -> Sums:
    """The sums of squares of a parameter's gradient.

    Raises:
        UsageError: it is sparse.
    """
    g = check_layout(entry)
    part, g = part_of(entry.p), local(g)
    if not is_matrix(g):
        return Sums(_square_norm(g, part))
    g = as_matrix(g)
    rows, cols = tiled.square_sums(g)
    cols = part.sum(cols)
    return Sums((rows if part.group is None else cols).sum(), rows, cols)


def _square_norm(t: Tensor, part: Part) -> Tensor:
    return part.sum(torch.linalg.vector_norm(t, dtype=torch.float32).square())
