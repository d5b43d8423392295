"""A training step against SANA's published one, written anew here from its formulas, on a small SANA.

What the published code does (NVlabs/Sana: `Scheduler`, `SpacedDiffusion`, `GaussianDiffusion.training_losses`, with
`noise_schedule: linear_flow`, `flow_shift: 3`, `weighting_scheme: logit_normal`): an index floor(1000 u) with u
logit-normal(0, 1); a table of 1000 shifted noise levels in float64; the timesteps of that table cut to integers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sanactl.checkpoint.open import open_checkpoint
from sanactl.model.flow import model_timesteps, sample_sigmas, velocity_loss
from sanactl.model.loading import load_transformer


def reference_tables(flow_shift: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Noise levels and integer timesteps by index, 1000 each."""
    betas = np.linspace(1.0, 0.001, 1000, dtype=np.float64)
    sigmas = 1.0 - betas
    shifted = flow_shift * sigmas / (1 + (flow_shift - 1) * sigmas)
    return shifted, (shifted * 1000).astype(np.int64)


def reference_loss(model: Any, index: NDArray[np.int64], flow_shift: float, batch: dict[str, Any]) -> Any:
    """`training_losses` of the published code, of each example: [B]."""
    sigmas, timesteps = reference_tables(flow_shift)
    level = torch.from_numpy(sigmas)[index].float()[:, None, None, None]
    noisy = (1 - level) * batch["latents"] + level * batch["noise"]
    predicted = model(
        noisy,
        encoder_hidden_states=batch["text"],
        encoder_attention_mask=batch["mask"],
        timestep=torch.from_numpy(timesteps)[index],
    ).sample
    target = batch["noise"] - batch["latents"]
    return ((target - predicted) ** 2).mean(dim=[1, 2, 3])


def a_batch(config: Any, count: int) -> dict[str, Any]:
    made = torch.Generator().manual_seed(1)
    shape = (count, int(config["in_channels"]), 4, 4)
    tokens = torch.arange(7)[None] < torch.randint(1, 8, (count, 1), generator=made)
    return {
        "latents": torch.randn(shape, generator=made),
        "noise": torch.randn(shape, generator=made),
        "text": torch.randn(count, 7, int(config["caption_channels"]), generator=made),
        "mask": tokens.long(),
    }


@pytest.mark.parametrize("flow_shift", [2.5, 3.0, 6.0])
def test_loss_and_gradients_are_the_published_ones(place: Path, flow_shift: float) -> None:
    checkpoint = open_checkpoint("tiny.st")
    ours, theirs = load_transformer(checkpoint).train(), load_transformer(checkpoint).train()
    batch = a_batch(checkpoint.config, 8)
    u = torch.randn(8, generator=torch.Generator().manual_seed(2)).sigmoid().numpy()
    index = (u * 1000).astype(np.int64)
    sigmas, timesteps = reference_tables(flow_shift)
    assert (np.abs(sigmas[index] * 1000 - timesteps[index]) > 0.1).any(), "nothing is cut here"
    sigma = torch.from_numpy(sigmas[index]).float()
    loss = velocity_loss(ours, batch["latents"], batch["noise"], sigma, batch["text"], batch["mask"])
    expected = reference_loss(theirs, index, flow_shift, batch)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    loss.mean().backward()
    expected.mean().backward()
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert a.grad is not None and b.grad is not None, name
        apart = (a.grad - b.grad).norm() / b.grad.norm().clamp_min(1e-12)
        assert apart < 1e-5, (name, apart)


def test_noise_levels_are_the_published_ones_in_distribution() -> None:
    """Quantiles of 200,000 levels against those of the published table at logit-normal indices."""
    ours = sample_sigmas(200_000, 3.0, torch.Generator().manual_seed(0)).numpy()
    u = 1 / (1 + np.exp(-np.random.default_rng(0).standard_normal(200_000)))
    theirs = reference_tables(3.0)[0][(u * 1000).astype(np.int64)]
    shares = np.linspace(0.05, 0.95, 19)
    assert np.abs(np.quantile(ours, shares) - np.quantile(theirs, shares)).max() < 5e-3


def test_the_model_sees_whole_timesteps() -> None:
    assert model_timesteps(torch.tensor([0.0, 0.0004, 0.5, 0.75, 0.9999999])).tolist() == [
        0,
        0,
        500,
        750,
        999,
    ]
    for shift in (1.5, 3.0, 6.0):
        sigmas, timesteps = reference_tables(shift)
        # Where float64 has a whole number but for rounding, float32 may be on its other side.
        clear = np.abs(sigmas * 1000 - np.round(sigmas * 1000)) > 1e-3
        assert clear.sum() > 900
        found = model_timesteps(torch.from_numpy(sigmas[clear]).float()).numpy()
        assert (found == timesteps[clear]).all()
