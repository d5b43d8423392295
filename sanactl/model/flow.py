"""Flow matching as in SANA's training: straight paths from data to noise, with the velocity as the target.

Shapes: B batch, C latent channels, H x W latent size. sigma in (0, 1) is the share of noise; the transformer is given
the timestep 1000 * sigma as a whole number (`model_timesteps`), as in SANA's own training and in both samplers.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "TRAIN_TIMESTEPS",
    "interpolate",
    "model_timesteps",
    "predict_velocity",
    "sample_sigmas",
    "shift_sigmas",
    "squared_error",
    "velocity_loss",
]

TRAIN_TIMESTEPS = 1000


def shift_sigmas(sigma: Tensor, flow_shift: float) -> Tensor:
    """sigma' = s * sigma / (1 + (s - 1) * sigma): s > 1 moves weight to noisy steps (Stable Diffusion 3, eq. 23)."""
    return flow_shift * sigma / (1 + (flow_shift - 1) * sigma)


def sample_sigmas(count: int, flow_shift: float, generator: torch.Generator) -> Tensor:
    """`count` noise levels, logit-normal(0, 1) and then shifted (SANA's training configuration); float32 [count]."""
    return shift_sigmas(torch.randn(count, generator=generator).sigmoid(), flow_shift)


def model_timesteps(sigma: Tensor) -> Tensor:
    """The timesteps that the transformer sees at noise levels sigma: floor(1000 sigma), same shape, float32.

    SANA's training code maps noise levels to integers (`_WrappedModel`, `SanaMS.forward`), and diffusers' scheduler and
    SANA's DPM-Solver do so in sampling. No published SANA was trained with fractions. The noise level is not rounded.
    """
    return torch.floor(sigma.float() * TRAIN_TIMESTEPS)


def interpolate(latents: Tensor, noise: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """The noisy latents x_t = (1 - sigma) x_0 + sigma e and the velocity e - x_0; all [B, C, H, W], sigma [B]."""
    sigma = sigma.view(-1, 1, 1, 1)
    return torch.lerp(latents, noise, sigma), noise - latents


def velocity_loss(
    transformer: torch.nn.Module,
    latents: Tensor,
    noise: Tensor,
    sigma: Tensor,
    text: Tensor,
    text_mask: Tensor,
) -> Tensor:
    """Mean squared error of the predicted velocity, of each example of the batch: float32 [B].

    Args:
        transformer: a `SanaTransformer2DModel`.
        latents: scaled latents x_0, [B, C, H, W].
        noise: e ~ N(0, 1), same shape.
        sigma: noise levels, [B].
        text: text embeddings [B, T, D]; text_mask: 1 for a token, 0 for padding, [B, T].
    """
    noisy, velocity = interpolate(latents, noise, sigma)
    return squared_error(predict_velocity(transformer, noisy, sigma, text, text_mask), velocity)


def predict_velocity(
    transformer: torch.nn.Module, noisy: Tensor, sigma: Tensor, text: Tensor, text_mask: Tensor
) -> Tensor:
    """The velocity that a transformer predicts for noisy latents [B, C, H, W] with noise levels [B]; same shape.

    Arguments as in `velocity_loss`.
    """
    predicted: Tensor = transformer(
        noisy,
        encoder_hidden_states=text,
        encoder_attention_mask=text_mask,
        timestep=model_timesteps(sigma) * transformer_timestep_scale(transformer),
        return_dict=False,
    )[0]
    return predicted


def squared_error(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error of each example of a batch [B, ...]: float32 [B]."""
    return (predicted.float() - wanted.float()).square().flatten(1).mean(1)


def transformer_timestep_scale(transformer: torch.nn.Module) -> float:
    """The factor that a checkpoint's config puts on timesteps; 1 if it names none."""
    config = getattr(transformer, "config", None) or getattr(
        getattr(transformer, "module", None), "config", None
    )
    return float(getattr(config, "timestep_scale", 1.0))
