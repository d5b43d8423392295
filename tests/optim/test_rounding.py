"""Stochastic rounding to bf16: to a neighbour, unbiased, and the same draws however the parameter is cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sanactl.optim import CAME8bit
from sanactl.optim.rounding import seed_of, stochastic_bf16


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("low", [1.0, -2.0, 3e-5, -1e20])
def test_it_is_unbiased_between_the_two_neighbours(share: float, low: float) -> None:
    n, first = 100_000, torch.tensor(low).bfloat16()
    second = torch.nextafter(first, first.new_tensor(torch.inf))
    x = torch.lerp(first.float(), second.float(), share)
    drawn = stochastic_bf16(x.expand(n).contiguous(), seed_of(7, 3))
    up = (drawn == second).double()
    assert ((drawn == first) | (drawn == second)).all()
    assert abs(up.mean() - share) < 5 * (share * (1 - share) / n) ** 0.5 + 2**-16


def test_what_bf16_holds_stays() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(stochastic_bf16(x.float(), 5), x)


def test_pieces_draw_what_the_whole_draws() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    whole = stochastic_bf16(x, 5)
    assert torch.equal(
        whole, torch.cat([stochastic_bf16(x[:300], 5), stochastic_bf16(x[300:], 5, first=300)])
    )
    assert not torch.equal(whole, stochastic_bf16(x, 6))


def test_every_step_parameter_and_part_has_a_seed_of_its_own() -> None:
    seeds = {seed_of(s, i, k) for s in range(1, 40) for i in range(40) for k in range(4)}
    assert len(seeds) == 39 * 40 * 4


def test_stochastic_rounding_keeps_small_updates() -> None:
    """bf16 near 1 has a spacing of 1/128; steps of about 1e-4 lr are lost by rounding to nearest."""
    moved = {}
    for on in (False, True):
        p = nn.Parameter(torch.ones(200, 100, dtype=torch.bfloat16))
        optimizer = CAME8bit([p], lr=2e-5, bf16_stochastic_round=on)
        for _ in range(50):
            p.grad = torch.ones_like(p)
            optimizer.step()
        moved[on] = 1 - p.float().mean().item()
    exact = nn.Parameter(torch.ones(200, 100))
    optimizer = CAME8bit([exact], lr=2e-5)
    for _ in range(50):
        exact.grad = torch.ones_like(exact)
        optimizer.step()
    assert moved[False] == 0
    assert moved[True] == pytest.approx(1 - exact.mean().item(), rel=0.03)


def one_step(p: Tensor, name: str | None = None, steps: int = 1, **options: Any) -> Tensor:
    """A bf16 matrix after steps of an optimizer of its own, all with the same gradient."""
    parameter = nn.Parameter(p.clone())
    optimizer = CAME8bit(
        [parameter if name is None else (name, parameter)], lr=2e-4, bf16_stochastic_round=True, **options
    )
    for _ in range(steps):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    return parameter.detach()


def test_parameters_in_optimizers_of_their_own_draw_apart() -> None:
    """The updates are the same, so that only the draws can tell the results apart; each alone is reproducible."""
    first = torch.ones(64, 200, dtype=torch.bfloat16)
    second = first.clone()
    second[-1] = 2
    assert torch.equal(one_step(first), one_step(first))
    assert not torch.equal(one_step(first)[:-1], one_step(second)[:-1])
    assert torch.equal(one_step(first, "a"), one_step(first, "a"))
    assert not torch.equal(one_step(first, "a"), one_step(first, "b"))
    ups = torch.stack([one_step(first, name) < 1 for name in "abcdefgh"]).double().flatten(1)
    assert 0.05 < ups.mean() < 0.95
    apart = torch.corrcoef(ups) - torch.eye(8)
    assert apart.abs().max() < 5 / ups.shape[1] ** 0.5  # 0.044: five standard deviations of independent draws


def test_draws_outlive_a_restart_of_an_optimizer_of_one_parameter() -> None:
    start = torch.randn(64, 300, generator=torch.Generator().manual_seed(0)).bfloat16()
    whole = one_step(start, steps=4)
    p = nn.Parameter(start.clone())
    before = CAME8bit([p], lr=2e-4, bf16_stochastic_round=True)
    p.grad = torch.ones_like(p)
    before.step()
    q = nn.Parameter(p.detach().clone())
    after = CAME8bit([q])
    after.load_state_dict(before.state_dict())
    for _ in range(3):
        q.grad = torch.ones_like(q)
        after.step()
    assert torch.equal(whole, q)
