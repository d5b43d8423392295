"""One CAME step in plain torch: the reference for the fast implementations.

Shapes: p, g, m are [R, C] (out x in) for matrices, any shape otherwise; rows [R], columns [C]; all arithmetic fp32.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from sanactl.optim.blockwise import Quantized, Scheme, dequantize, quantize

__all__ = ["Hyper", "came8bit_step", "came_step", "factor"]

State = dict[str, Tensor]


class Hyper(NamedTuple):
    """The settings of one step, as in CAME (Luo et al., 2023).

    Attributes:
        lr: learning rate; a scalar tensor stays on its device.
        betas: decay of the first moment, of the squared gradient, of the instability.
        eps: added to the squared gradient, to the instability.
        clip_threshold: largest root mean square of the normalised gradient.
        weight_decay: decoupled; the parameter shrinks by `lr * weight_decay` a step.
        maximize: maximise the objective instead of minimising it.
    """

    lr: float | Tensor
    betas: tuple[float, float, float] = (0.9, 0.999, 0.9999)
    eps: tuple[float, float] = (1e-30, 1e-16)
    clip_threshold: float = 1.0
    weight_decay: float = 0.0
    maximize: bool = False


def factor(rows: Tensor, cols: Tensor) -> tuple[Tensor, Tensor]:
    """The two factors [R, 1] and [1, C] whose product is 1 / sqrt(rows cols / mean(rows)) (CAME, equation 3)."""
    return rows.mean().sqrt() * rows.rsqrt().unsqueeze(1), cols.rsqrt().unsqueeze(0)


def came_step(p: Tensor, g: Tensor, state: State, h: Hyper) -> tuple[Tensor, State]:
    """One step of CAME (Luo et al. 2023, algorithm 2), as the SANA-1.5 paper uses it (section 2.3).

    Args:
        p: the parameter: a matrix [R, C] when the state is factored, else of any shape.
        g: its gradient, finite, same shape.
        state: fp32 `exp_avg` with either `exp_avg_sq` (unfactored: no confidence term), or the rows [R] and columns
            [C] `exp_avg_sq_row`, `exp_avg_sq_col`, `exp_avg_res_row`, `exp_avg_res_col`.
        h: the settings.

    Returns:
        The new parameter in fp32, and the new state. The arguments are not changed.
    """
    b1, b2, b3 = h.betas
    p, g, new = p.float(), -g.float() if h.maximize else g.float(), {}

    # Second moment, factored into rows and columns: O(R + C) instead of O(R C) (section 2.3, "hybrid precision").
    g2 = g.square() + h.eps[0]
    if "exp_avg_sq" in state:
        new["exp_avg_sq"] = b2 * state["exp_avg_sq"] + (1 - b2) * g2
        u = g * new["exp_avg_sq"].rsqrt()
    else:
        new["exp_avg_sq_row"] = b2 * state["exp_avg_sq_row"] + (1 - b2) * g2.mean(dim=1)
        new["exp_avg_sq_col"] = b2 * state["exp_avg_sq_col"] + (1 - b2) * g2.mean(dim=0)
        r, c = factor(new["exp_avg_sq_row"], new["exp_avg_sq_col"])
        u = g * c * r  # in this order: |g c| <= sqrt(R / (1 - b2)), so that no product overflows

    u = u / (u.square().mean().sqrt() / h.clip_threshold).clamp(min=1)  # clip the root mean square
    m = new["exp_avg"] = b1 * state["exp_avg"] + (1 - b1) * u  # first moment: the state that 8 bits hold

    # Confidence: divide by the factored running mean of (u - m)^2, large where the update is unstable.
    step = m
    if "exp_avg_sq" not in state:
        res = (u - m).square() + h.eps[1]
        new["exp_avg_res_row"] = b3 * state["exp_avg_res_row"] + (1 - b3) * res.mean(dim=1)
        new["exp_avg_res_col"] = b3 * state["exp_avg_res_col"] + (1 - b3) * res.mean(dim=0)
        r, c = factor(new["exp_avg_res_row"], new["exp_avg_res_col"])
        step = m * c * r

    return p * (1 - h.lr * h.weight_decay) - h.lr * step, new


def came8bit_step(
    p: Tensor, g: Tensor, state: State, m: Quantized, h: Hyper, *, block_size: int, scheme: Scheme
) -> tuple[Tensor, State, Quantized]:
    """One step of CAME-8bit (SANA-1.5, section 2.3): `came_step` with a first moment that is stored in 8 bits.

    The step itself uses the fp32 moment; only the moment stored for the next step is rounded. `state` is as for
    `came_step` without `exp_avg`, which is `m`. Returns the parameter in fp32, the state and the first moment.
    """
    p, new = came_step(p, g, {**state, "exp_avg": dequantize(m, block_size, scheme)}, h)
    return p, new, quantize(new.pop("exp_avg"), block_size, scheme)
