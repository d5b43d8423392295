"""Two programs that draw the same images with the same modules: sanactl, and diffusers' pipelines."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from sanactl.model.sampler import Guidance, decode_latents, denoise, image_generators, initial_noise
from sanactl.model.sampling_settings import SamplingSettings
from sanactl.model.sampling_transformer import SamplingTransformer
from sanactl.model.text import encode_prompts, human_instruction

if TYPE_CHECKING:
    from sanactl.bench.random_models import Models
    from sanactl.model.conditioning import Sana

__all__ = ["PROMPT", "Draw", "Parts", "ours", "random_parts", "their_name", "theirs"]

PROMPT = "a photo of a red apple and a green vase on a wooden table"

# Draws so many images of `PROMPT` at once, in so many steps.
Draw = Callable[[int, int], Any]


@dataclass(frozen=True)
class Parts:
    """The modules of a text-to-image model, and how images are drawn.

    Attributes:
        tokenizer, text_encoder, vae, scheduler: diffusers' and transformers' objects, on one device.
        transformer: ours around diffusers' one, with the same weights.
        settings: of sampling; the number of steps is given with each call.
        instruction: lines before each prompt, or None.
        sprint: whether it is a SANA-Sprint model.
        pixels_per_latent: pixels a side.
    """

    tokenizer: Any
    text_encoder: Any
    vae: Any
    transformer: SamplingTransformer
    scheduler: Any
    settings: SamplingSettings
    instruction: list[str] | None
    sprint: bool = False
    pixels_per_latent: int = 32

    @classmethod
    def of(cls, sana: Sana) -> Parts:
        """Of a checkpoint that is loaded."""
        c = sana.components
        shape = sana.latent_shape()
        return cls(
            c.tokenizer,
            c.text_encoder,
            c.vae,
            sana.transformer,
            c.scheduler,
            sana.settings,
            sana.texts.instruction,
            sana.sprint,
            sana.settings.height // shape[1],
        )

    def sized(self, height: int, width: int) -> Parts:
        """The same for images of another size."""
        return replace(self, settings=replace(self.settings, height=height, width=width))


def random_parts(around: Models, transformer: Any, settings: SamplingSettings) -> Parts:
    """Of modules with random weights."""
    return Parts(
        around.tokenizer,
        around.text_encoder,
        around.vae,
        SamplingTransformer(transformer),
        around.scheduler,
        settings,
        human_instruction(),
        pixels_per_latent=around.pixels_per_latent,
    )


def ours(parts: Parts) -> Draw:
    """As `sanactl sample` draws one fixed batch: uint8 [images, height, width, 3]."""
    from sanactl.model.sprint import denoise_sprint

    s, channels = parts.settings, int(parts.transformer.config.in_channels)
    shape = channels, s.height // parts.pixels_per_latent, s.width // parts.pixels_per_latent
    guided = s.guidance_scale > 1 and not parts.sprint
    longest = s.max_sequence_length

    def draw(images: int, steps: int) -> Any:
        text, mask = encode_prompts(
            parts.tokenizer,
            parts.text_encoder,
            [PROMPT],
            max_sequence_length=longest,
            instruction=parts.instruction,
        )
        negative: tuple[Any, Any] = (None, None)
        if guided:
            negative = encode_prompts(
                parts.tokenizer, parts.text_encoder, [s.negative_prompt], max_sequence_length=longest
            )
        guidance = Guidance(text.expand(images, -1, -1), mask.expand(images, -1), *negative, s.guidance_scale)
        latents = (denoise_sprint if parts.sprint else denoise)(
            parts.transformer,
            copy.deepcopy(parts.scheduler),
            initial_noise(range(images), shape),
            guidance,
            steps=steps,
            generators=image_generators(range(images)),
        )
        return decode_latents(parts.vae, latents)

    return draw


def their_name(parts: Parts) -> str:
    """The name of diffusers' pipeline."""
    return "SanaSprintPipeline" if parts.sprint else "SanaPipeline"


def theirs(parts: Parts) -> Draw:
    """As diffusers' pipeline draws: PIL images, from the same modules, which it shares."""
    import diffusers

    from sanactl.model.loading import quiet_libraries

    quiet_libraries()
    pipeline = getattr(diffusers, their_name(parts))(
        tokenizer=parts.tokenizer,
        text_encoder=parts.text_encoder,
        vae=parts.vae,
        transformer=parts.transformer.published,
        scheduler=copy.deepcopy(parts.scheduler),
    )
    pipeline.set_progress_bar_config(disable=True)
    s = parts.settings

    def draw(images: int, steps: int) -> Any:
        more: dict[str, Any] = {"negative_prompt": s.negative_prompt} if not parts.sprint else {}
        if parts.sprint and steps != 2:
            more["intermediate_timesteps"] = None
        return pipeline(
            PROMPT,
            num_images_per_prompt=images,
            num_inference_steps=steps,
            guidance_scale=s.guidance_scale,
            height=s.height,
            width=s.width,
            generator=torch.Generator().manual_seed(0),
            max_sequence_length=s.max_sequence_length,
            complex_human_instruction=parts.instruction,
            use_resolution_binning=False,  # it would draw 512 pixels as 1024
            **more,
        ).images

    return draw
