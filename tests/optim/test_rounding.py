"""Stochastic rounding to bf16: to a neighbour, unbiased, and the same draws however the parameter is cut."""

from __future__ import annotations

import pytest
import torch

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
