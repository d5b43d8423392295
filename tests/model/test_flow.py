"""Flow matching against its formulas."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from sanactl.model.flow import interpolate, sample_sigmas, shift_sigmas, velocity_loss


def test_path_is_straight_and_velocity_its_slope() -> None:
    data, noise = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    for share in (0.0, 0.3, 1.0):
        noisy, velocity = interpolate(data, noise, torch.full((3,), share))
        torch.testing.assert_close(noisy, data + share * velocity)
    assert (interpolate(data, noise, torch.ones(3))[0] == noise).all()


def test_noise_levels_are_logit_normal_and_shifted() -> None:
    sigma = sample_sigmas(20_000, 3.0, torch.Generator().manual_seed(0)).double().numpy()
    unshifted = sigma / (3 - 2 * sigma)
    logit = np.log(unshifted / (1 - unshifted))
    assert stats.kstest(logit, "norm").pvalue > 0.001
    assert sigma.min() > 0
    assert sigma.max() < 1


@pytest.mark.parametrize("shift", [1.0, 3.0, 6.0])
def test_shift_is_the_schedulers(shift: float) -> None:
    """diffusers moves its own flow sigmas by the same formula."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    plain = FlowMatchEulerDiscreteScheduler(shift=1.0).sigmas
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift).sigmas
    torch.testing.assert_close(shift_sigmas(plain, shift), theirs)


class Knows(torch.nn.Module):
    """Predicts the velocity but for a constant, and remembers the timesteps that it was asked for."""

    def __init__(self, velocity: torch.Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.velocity, self.config = velocity, SimpleNamespace(timestep_scale=scale)

    def forward(self, noisy: torch.Tensor, *, timestep: torch.Tensor, **rest: Any) -> tuple[torch.Tensor]:
        self.timestep = timestep
        return (self.velocity + torch.tensor([0.0, 1.0, 2.0]).view(-1, 1, 1, 1),)


@pytest.mark.parametrize("scale", [1.0, 0.001])
def test_loss_is_each_examples_mean_square(scale: float) -> None:
    data, noise, sigma = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor([0.1, 0.5, 0.9])
    model = Knows(noise - data, scale)
    loss = velocity_loss(model, data, noise, sigma, torch.zeros(3, 1, 1), torch.ones(3, 1))
    torch.testing.assert_close(loss, torch.tensor([0.0, 1.0, 4.0]))
    torch.testing.assert_close(model.timestep, 1000 * scale * sigma)
