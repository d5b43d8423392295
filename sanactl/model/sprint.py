"""Sampling of SANA-Sprint in 1 to 4 steps, as in diffusers' `SanaSprintPipeline`.

The model is a consistency model in TrigFlow's terms (x_t = cos(t) x_0 + sin(t) z, t from pi/2 down to 0), made from a flow
model. So its transformer gets the flow's time and latents, and its velocity is converted to TrigFlow's. The guidance scale
is an input of the transformer, so there is one forward pass a step and no negative prompt.

Source: SANA-Sprint (arXiv 2503.09641); diffusers `pipelines/sana/pipeline_sana_sprint.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sanactl.model.offload import compute_device
from sanactl.model.sampler import Guidance, step_options
from sanactl.model.sampling_transformer import Conditioned

__all__ = [
    "INTERMEDIATE_TIMESTEP",
    "MAX_TIMESTEP",
    "denoise_sprint",
    "set_sprint_timesteps",
    "sprint_guidance",
]

# SanaSprintPipeline's defaults. The second is for two steps; for other numbers of steps, timesteps are evenly spaced.
MAX_TIMESTEP, INTERMEDIATE_TIMESTEP = 1.57080, 1.3


def set_sprint_timesteps(scheduler: Any, steps: int, device: torch.device) -> None:
    """Set an `SCMScheduler`'s timesteps for this number of steps; its last timestep, 0, is not a step."""
    scheduler.set_timesteps(
        steps,
        device=device,
        max_timesteps=MAX_TIMESTEP,
        intermediate_timesteps=INTERMEDIATE_TIMESTEP if steps == 2 else None,
    )
    scheduler.set_begin_index(0)


def sprint_guidance(transformer: Any, scale: float, text: Tensor) -> Tensor:
    """The guidance scale as the transformer's input, [B], in the dtype of the texts [B, T, D]."""
    guidance = torch.full([text.shape[0]], scale, dtype=torch.float32, device=text.device).to(text.dtype)
    return guidance * transformer.config.guidance_embeds_scale


@torch.no_grad()
def denoise_sprint(
    transformer: Any,
    scheduler: Any,
    noise: Tensor,
    guidance: Guidance,
    *,
    steps: int = 2,
    generators: Sequence[torch.Generator] | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> Tensor:
    """Run the sampler from noise to latents.

    Args:
        transformer: a `SamplingTransformer` or a `SanaTransformer2DModel` with `guidance_embeds`.
        scheduler: an `SCMScheduler`; its timesteps are set here.
        noise: [B, C, H, W], standard normal.
        guidance: the prompts.
        steps: forward passes; the model is trained for 1 to 4.
        generators: of the images, for the new noise between two steps.
        on_step: called before step i with (i, timestep), the timestep being TrigFlow's (1.57 is noise).

    Returns:
        scaled latents, float32 [B, C, H, W].
    """
    parameter = next(transformer.parameters())
    device, dtype = compute_device(transformer), parameter.dtype
    set_sprint_timesteps(scheduler, steps, device)
    spread = scheduler.config.sigma_data
    scale = sprint_guidance(transformer, guidance.scale, guidance.text.to(device))
    conditioned = Conditioned(transformer, guidance.text.to(device, dtype), guidance.mask.to(device))
    latents = noise.to(device, torch.float32) * spread
    clean = latents
    options = step_options(scheduler, generators)
    for i, timestep in enumerate(scheduler.timesteps[:-1]):
        if on_step is not None:
            on_step(i, float(timestep))
        each = timestep.expand(latents.shape[0])
        # TrigFlow's time as the flow's: the share of noise s, and latents of the flow's size at it.
        s = (torch.sin(each) / (torch.cos(each) + torch.sin(each))).view(-1, 1, 1, 1)
        size = torch.sqrt(s**2 + (1 - s) ** 2)
        inputs = latents / spread * size
        velocity = conditioned.velocity(inputs.to(dtype), s.flatten()[:1], scale[:1])
        # The flow's velocity as TrigFlow's.
        turned = ((1 - 2 * s) * inputs + (1 - 2 * s + 2 * s**2) * velocity) / size
        latents, clean = scheduler.step(turned.float() * spread, each, latents, return_dict=False, **options)
    return clean / spread
