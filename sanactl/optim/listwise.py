"""CAME-8bit as the public SANA code computes it, for comparisons of speed; not for training.

It is an independent re-implementation: the state is a Python list of blocks of 2048 rows, each step dequantizes the whole
fp32 moment and quantizes it again, and every intermediate result is a new tensor. Constant blocks divide by zero; the
result is still right, because a NaN becomes the code 0 on all processors that were tried.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["ListwiseCAME8bit"]

Blocks = list[tuple[Tensor, Tensor, Tensor]]  # codes, scale, minimum


class ListwiseCAME8bit(Optimizer):
    """CAME-8bit with a list of blocks as its state; options as for `CAME8bit`."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        eps: tuple[float, float] = (1e-30, 1e-16),
        clip_threshold: float = 1.0,
        block_rows: int = 2048,
        min_8bit_size: int = 16384,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "clip_threshold": clip_threshold}
        super().__init__(params, {**defaults, "block_rows": block_rows, "min_8bit_size": min_8bit_size})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step over all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    _step(p, p.grad.float(), self.state[p], group)
        return loss


def _step(p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    b1, b2, b3 = group["betas"]
    matrix = g.ndim == 2 or (g.ndim == 4 and g.shape[2:] == (1, 1))
    eight = matrix and g.numel() > group["min_8bit_size"]
    if not state:
        zeros = torch.zeros_like(g)
        state["exp_avg"] = _cut(zeros, group["block_rows"]) if eight else zeros
        if matrix:
            for name in ("sq", "res"):
                state[name] = (torch.zeros(g.shape[0]).to(g), torch.zeros(g.shape[1]).to(g))
        else:
            state["sq"] = zeros.clone()
    state["rms"] = _rms(p)  # kept there, never used
    m = _join(state["exp_avg"]) if eight else state["exp_avg"]
    square = g**2 + group["eps"][0]
    if matrix:
        u = _inverse_root(state["sq"], square, b2).view_as(g) * g
    else:
        state["sq"].mul_(b2).add_(square, alpha=1 - b2)
        u = state["sq"].rsqrt() * g
    u.div_((_rms(u) / group["clip_threshold"]).clamp_(min=1.0))
    m.mul_(b1).add_(u, alpha=1 - b1)
    state["exp_avg"] = _cut(m, group["block_rows"]) if eight else m
    residual = (u - m) ** 2 + group["eps"][1]
    step = _inverse_root(state["res"], residual, b3).view_as(g).mul_(m) if matrix else m.clone()
    step.mul_(group["lr"])
    p.add_(-step)


def _inverse_root(means: tuple[Tensor, Tensor], values: Tensor, beta: float) -> Tensor:
    rows, cols = means
    values = values.view(values.shape[0], values.shape[1])
    rows.mul_(beta).add_(values.mean(dim=1), alpha=1 - beta)
    cols.mul_(beta).add_(values.mean(dim=0), alpha=1 - beta)
    return (rows / rows.mean()).rsqrt().unsqueeze(1) * cols.unsqueeze(0).rsqrt()


def _cut(m: Tensor, rows: int) -> Blocks:
    blocks = []
    for part in m.split(rows):
        low, high = part.min(), part.max()
        scale = (high - low) / 255
        blocks.append((((part - low) / scale).round().byte(), scale, low))
    return blocks


def _join(blocks: Blocks) -> Tensor:
    return torch.cat([codes.float() * scale + low for codes, scale, low in blocks])


def _rms(x: Tensor) -> Tensor:
    return x.norm(2) / x.numel() ** 0.5
