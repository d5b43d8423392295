"""Sampling as in `SanaPipeline`: classifier-free guidance with a flow DPM-Solver, for many prompts at once.

An image depends only on its checkpoint, prompt, seed and settings. Its noise comes from its own generator on the CPU, and
its prompt is padded to a fixed length, so batch and device do not change the noise or the condition. diffusers' pipelines
draw the same noise with the same generator: `generator=torch.Generator().manual_seed(seed)`.

The sampler of SANA-Sprint is in `sanactl.model.sprint`.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sanactl.model.flow import transformer_timestep_scale
from sanactl.model.offload import compute_device
from sanactl.model.sampling_transformer import Conditioned

__all__ = [
    "Guidance",
    "decode_latents",
    "denoise",
    "draw_noise",
    "image_generators",
    "image_seed",
    "initial_noise",
    "step_options",
]


DECODED_PIXELS = 2**20


@dataclass(frozen=True)
class Guidance:
    """Text conditions of a batch: embeddings [B, T, D] and masks [B, T], and those of the negative prompt (B = 1).

    Those of the negative prompt are None if the guidance scale is at most 1, or if the transformer takes it as an input.
    """

    text: Tensor
    mask: Tensor
    negative_text: Tensor | None = None
    negative_mask: Tensor | None = None
    scale: float = 4.5


def image_seed(seed: int, prompt: str, index: int) -> int:
    """The seed of image `index` of a prompt: 53 bits of SHA-256, so that it depends on nothing else.

    JSON readers that store numbers as floats (jq, JavaScript) lose whole numbers above 2^53.
    """
    digest = hashlib.sha256(f"{seed}\0{index}\0{prompt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 11


def image_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """A CPU generator for each image. It draws the initial noise first, then the noise that a scheduler adds."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def draw_noise(generators: Sequence[torch.Generator], shape: tuple[int, int, int]) -> Tensor:
    """Standard normal noise [B, C, H, W], each image's from its own generator."""
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def initial_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """The initial noise [B, C, H, W] of images with these seeds; shape is (C, H, W)."""
    return draw_noise(image_generators(seeds), shape)


@torch.no_grad()
def denoise(
    transformer: torch.nn.Module,
    scheduler: Any,
    noise: Tensor,
    guidance: Guidance,
    *,
    steps: int = 20,
    generators: Sequence[torch.Generator] | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> Tensor:
    """Run the sampler from noise to latents.

    The transformer gets whole timesteps, as in SANA's own samplers, even if the scheduler has fractions.

    Args:
        transformer: a `SamplingTransformer` or a `SanaTransformer2DModel`.
        scheduler: a diffusers flow scheduler; its timesteps are set here.
        noise: [B, C, H, W], standard normal.
        guidance: the prompts; with `scale` <= 1 the negative branch is not computed.
        generators: of the images, for schedulers that add noise at each step; see `image_generators`.
        on_step: called before step i with (i, timestep), for hooks that need the step.

    Returns:
        scaled latents, float32 [B, C, H, W].
    """
    parameter = next(transformer.parameters())
    device, dtype = compute_device(transformer), parameter.dtype
    guided = guidance.scale > 1
    text, mask = guidance.text, guidance.mask
    if guided:
        assert guidance.negative_text is not None and guidance.negative_mask is not None
        batch = noise.shape[0]
        text = torch.cat([guidance.negative_text.expand(batch, -1, -1), text])
        mask = torch.cat([guidance.negative_mask.expand(batch, -1), mask])
    conditioned = Conditioned(transformer, text.to(device, dtype), mask.to(device))
    scheduler.set_timesteps(steps, device=device)
    latents = noise.to(device, torch.float32)
    factor = transformer_timestep_scale(transformer)
    options = step_options(scheduler, generators)
    for i, timestep in enumerate(scheduler.timesteps):
        if on_step is not None:
            on_step(i, float(timestep))
        time = (torch.floor(timestep.float()) if factor == 1 else timestep) * factor
        velocity = conditioned.velocity(latents.to(dtype), time).float()
        if guided:
            unconditional, conditional = velocity.chunk(2)
            velocity = unconditional + guidance.scale * (conditional - unconditional)
        latents = scheduler.step(velocity, timestep, latents, return_dict=False, **options)[0]
    return latents


def step_options(scheduler: Any, generators: Sequence[torch.Generator] | None) -> dict[str, Any]:
    """Further arguments of `scheduler.step`, so that each image's added noise comes from its own generator."""
    takes = "generator" in inspect.signature(scheduler.step).parameters
    return {"generator": list(generators)} if takes and generators is not None else {}


@torch.no_grad()
def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """Latents [B, C, H, W] to pixels: uint8 [B, height, width, 3] on the CPU.

    At once so many images as have `DECODED_PIXELS` are decoded: at 1024 pixels each by itself, because the autoencoder's
    memory is that of its pixels, and one such image keeps a device busy.
    """
    if len(latents) > 1:
        side = 2 ** (len(vae.config.encoder_block_out_channels) - 1)
        size = max(1, DECODED_PIXELS // (latents.shape[2] * latents.shape[3] * side**2))
        if size < len(latents):
            return torch.cat([decode_latents(vae, part) for part in latents.split(size)])
    parameter = next(vae.parameters())
    scaled = latents.to(compute_device(vae), parameter.dtype) / vae.config.scaling_factor
    pixels = vae.decode(scaled, return_dict=False)[0].float()
    return pixels.mul(127.5).add(127.5).round_().clamp_(0, 255).byte().permute(0, 2, 3, 1).cpu()
