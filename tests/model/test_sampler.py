"""The sampler's parts; that whole images are `SanaPipeline`'s is held by tests/cli/test_pipeline.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler

from sanactl.checkpoint.builtin import asset
from sanactl.model.sampler import Guidance, decode_latents, denoise, image_seed, initial_noise


class Straight(torch.nn.Module):
    """The exact velocity of a world with one picture: e - x_0, whatever x_t is, for the prompt's half."""

    def __init__(self, target: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace()
        self.target = target
        self.batches: list[int] = []

    def forward(self, noisy: torch.Tensor, *, timestep: torch.Tensor, **rest: Any) -> tuple[torch.Tensor]:
        self.batches.append(noisy.shape[0])
        sigma = (timestep / 1000).view(-1, 1, 1, 1)
        return ((noisy - self.target) / sigma.clamp(min=1e-4),)


def conditions(batch: int, scale: float) -> Guidance:
    text, mask = torch.zeros(batch, 2, 4), torch.ones(batch, 2)
    return Guidance(text, mask, text[:1], mask[:1], scale)


def test_the_exact_velocity_leads_to_the_picture() -> None:
    target = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    scheduler = DPMSolverMultistepScheduler.from_pretrained(asset("scheduler"))
    noise = initial_noise([1, 2], (1, 8, 8))
    for scale in (1.0, 4.5):
        model = Straight(target)
        seen: dict[int, float] = {}
        latents = denoise(model, scheduler, noise, conditions(2, scale), steps=10, on_step=seen.__setitem__)
        torch.testing.assert_close(latents, target.expand(2, -1, -1, -1), atol=5e-3, rtol=0)
        # Without guidance the empty prompt is not computed.
        assert set(model.batches) == {2 if scale == 1.0 else 4}
        assert list(seen) == list(range(10))
        assert list(seen.values()) == sorted(seen.values(), reverse=True)


def test_noise_is_each_images_own() -> None:
    noise = initial_noise([5, 6, 7], (2, 4, 4))
    assert (initial_noise([6], (2, 4, 4))[0] == noise[1]).all()
    assert not (noise[0] == noise[1]).any()


def test_seeds_depend_on_seed_prompt_and_index() -> None:
    # Held for good: the same seed has to give the same image in every version.
    assert image_seed(0, "a star", 0) == 4228977788309879
    assert image_seed(7, "ein Stern ★", 31) == 8755923865254310
    assert image_seed(7, "ein Stern ★", 31) < 2**53
    seeds = {image_seed(s, p, i) for s in range(3) for p in ("a", "b", "a0") for i in range(20)}
    assert len(seeds) == 3 * 3 * 20
    assert all(0 <= seed < 2**63 for seed in seeds)
    # What is joined is told apart: prompt "1\x000..." cannot pass for index 1.
    assert image_seed(0, "x", 11) != image_seed(0, "1x", 1)


def test_large_images_are_decoded_by_themselves() -> None:
    """So a fixed batch takes no more memory in the autoencoder than one image."""
    sizes = []

    class Vae(torch.nn.Linear):
        config = SimpleNamespace(scaling_factor=1.0, encoder_block_out_channels=(1,) * 6)

        def decode(self, latents: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
            sizes.append(len(latents))
            return (latents[:, :3].repeat_interleave(32, 2).repeat_interleave(32, 3),)

    for side, wanted in ((32, [1, 1, 1]), (64, [1, 1, 1]), (16, [3]), (24, [1, 1, 1])):
        sizes.clear()
        latents = torch.rand(3, 4, side, side) * 2 - 1
        pixels = decode_latents(Vae(1, 1), latents)
        assert sizes == wanted and pixels.shape == (3, 32 * side, 32 * side, 3)
        assert (
            pixels[:, ::32, ::32].permute(0, 3, 1, 2).float() / 127.5 - 1 - latents[:, :3]
        ).abs().max() < 0.01
