"""Trains the built-in world's autoencoder: diffusers' `AutoencoderDC`, 64 x 64 pixels to 8 latents of 8 x 8.

The deep-compression autoencoder is SANA's own (SANA-1.0, section 2.1), here with a factor of 8 in place of 32: at
64 pixels a factor of 32 would leave four tokens.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.files.atomic import atomic_dir
from sanactl.files.progress import SILENT, Progress
from sanactl.training.settings import FinetuneSettings, learning_rate_factor

if TYPE_CHECKING:
    import torch

__all__ = ["VAE_CONFIG", "train_vae"]

# No block at full resolution (as in DC-AE's f32): the pixels are folded into channels at once, which makes training
# 2.6 times as fast on a CPU. The first width is only that of the fold.
CHANNELS = (32, 64, 64, 64)
BLOCKS = (0, 1, 1, 1)
VAE_CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "latent_channels": 8,
    "attention_head_dim": 16,
    "encoder_block_types": ["ResBlock"] * 4,
    "decoder_block_types": ["ResBlock"] * 4,
    "encoder_block_out_channels": list(CHANNELS),
    "decoder_block_out_channels": list(CHANNELS),
    "encoder_layers_per_block": list(BLOCKS),
    "decoder_layers_per_block": list(BLOCKS),
    "encoder_qkv_multiscales": [[]] * 4,
    "decoder_qkv_multiscales": [[]] * 4,
}

# Decoding has to survive latents that a sampler got nearly right; noise of this standard deviation on latents of
# unit variance costs about 1 dB of reconstruction.
LATENT_NOISE = 0.05
# Pulls every latent channel towards mean 0 and variance 1, so that one scaling factor fits all.
MOMENT_WEIGHT = 0.01

WARMUP = 200  # steps
LEAST_RATE = 2e-5  # the cosine goes down to this and not to 0


def image_batch(indices: range, seed: int) -> torch.Tensor:
    """Rendered scenes as float32 [B, 3, 64, 64] in [-1, 1]; a function of the indices and the seed alone."""
    import torch

    from sanactl.shapes.dataset import batch

    images, _ = batch(list(indices), seed=seed)
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def train_vae(
    target: Path,
    *,
    steps: int = 8_000,
    batch_size: int = 8,
    learning_rate: float = 3e-3,
    seed: int = 0,
    force: bool = False,
    progress: Progress = SILENT,
) -> dict[str, float]:
    """Trains an `AutoencoderDC` on rendered scenes and writes a diffusers folder.

    The last fifth of the steps trains the decoder alone with the encoder fixed, which sharpens the edges. The learning
    rate has a linear warm-up, then a cosine.

    Args:
        target: the folder to write.
        steps: updates of the weights.
        batch_size: scenes a step.
        learning_rate: at the end of the warm-up.
        seed: of the scenes, the first weights and the noise.
        force: replace a folder that is there.
        progress: told of each step.

    Returns:
        `psnr` (dB) and `mae` (of 255) on 256 scenes that training never saw.
    """
    import torch
    from diffusers import AutoencoderDC
    from torch.nn import functional as F

    from sanactl.model.saving import rewrite_weights

    torch.manual_seed(seed)
    vae = AutoencoderDC(**VAE_CONFIG).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = FinetuneSettings(steps=steps, warmup=WARMUP, schedule="cosine")
    polish = int(steps * 0.8)
    progress.start(steps, "autoencoder")
    for step in range(steps):
        rate = learning_rate * learning_rate_factor(schedule, step) + LEAST_RATE
        for group in optimizer.param_groups:
            group["lr"] = rate
        if step == polish:
            vae.encoder.requires_grad_(False)
        images = image_batch(range(step * batch_size, (step + 1) * batch_size), seed)
        # bf16 takes 0.6 of the time; the polish is fp32, since bf16 alone leaves a floor of about 40 dB.
        with torch.autocast("cpu", torch.bfloat16, enabled=step < polish):
            with torch.set_grad_enabled(step < polish):
                latents = vae.encode(images, return_dict=False)[0].float()
            noisy = latents + LATENT_NOISE * torch.randn_like(latents)
            decoded = vae.decode(noisy, return_dict=False)[0].float()
        loss = F.l1_loss(decoded, images) + 2 * F.mse_loss(decoded, images)
        if step < polish:
            mean, var = latents.mean((0, 2, 3)), latents.var((0, 2, 3))
            loss = loss + MOMENT_WEIGHT * (mean.square().mean() + (var - 1).square().mean())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        progress.advance(1, loss=f"{loss.item():.4f}", lr=f"{rate:.1e}")
    progress.close()

    vae.eval()
    with torch.no_grad():
        held_out = image_batch(range(256), seed + 1)
        latents = vae.encode(held_out, return_dict=False)[0]
        decoded = vae.decode(latents, return_dict=False)[0].clamp(-1, 1)
    # SanaPipeline multiplies encoded latents by scaling_factor, so this gives them unit variance.
    vae.register_to_config(scaling_factor=round(1.0 / latents.std().item(), 5))
    error = (decoded - held_out) * 127.5
    with atomic_dir(target, force=force) as folder:
        vae.save_pretrained(folder)
        rewrite_weights(folder)
    return {
        "psnr": 20 * math.log10(255 / error.square().mean().sqrt().item()),
        "mae": error.abs().mean().item(),
    }
