"""Two programs that draw the same images with the same modules: sanactl, and diffusers' pipelines."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch

from sanactl.model.conditions import TextConditions
from sanactl.model.sampler import Guidance, decode_latents, denoise, image_generators, initial_noise
from sanactl.model.sampling_settings import SamplingSettings
from sanactl.model.sampling_transformer import SamplingTransformer
from sanactl.model.text import human_instruction

if TYPE_CHECKING:
    from sanactl.bench.random_models import Models
    from sanactl.model.conditioning import Sana

__all__ = [
    "PROMPT", "Draw", "Parts", "ours", "ours_in_batches", "random_parts", "texts_of", "their_name", "theirs", "theirs_in_batches",
]  # fmt: skip

PROMPT = "a photo of a red apple and a green vase on a wooden table"


class Draw(Protocol):
    """Draws images of `PROMPT` in so many steps; their seeds are counted from `first`."""

    def __call__(self, images: int, steps: int, first: int = 0) -> Any: ...


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
            sana.texts.encoder(),
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

    def draw(images: int, steps: int, first: int = 0) -> Any:
        guidance = texts_of(parts).guidance([PROMPT] * images)
        return _drawn(parts, guidance, range(first, first + images), steps)

    return draw


def ours_in_batches(parts: Parts, batch: int) -> Draw:
    """As `sanactl sample` draws all images of a prompt: its text is encoded once, and then come fixed batches of `batch`."""
    from sanactl.model.cpu import Workers, one_thread_each

    parameters = sum(p.numel() for p in parts.transformer.parameters())
    device = next(parts.transformer.parameters()).device

    def draw(images: int, steps: int, first: int = 0) -> Any:
        guidance = texts_of(parts).guidance([PROMPT] * batch)
        starts = range(first, first + images, batch)

        def one(start: int) -> Any:
            return _drawn(parts, guidance, range(start, start + batch), steps)

        if not one_thread_each(device, parameters):
            return torch.cat([one(start) for start in starts])
        with Workers() as workers:
            return torch.cat(list(workers.map(one, starts)))

    return draw


def texts_of(parts: Parts) -> TextConditions:
    """The texts of sanactl's program."""
    texts = TextConditions(
        "the model",
        parts.tokenizer,
        lambda: parts.text_encoder,
        parts.settings,
        width=int(parts.transformer.config.caption_channels),
        sprint=parts.sprint,
    )
    texts.encoder()
    return texts


def _drawn(parts: Parts, guidance: Guidance, seeds: Sequence[int], steps: int) -> Any:
    from sanactl.model.sprint import denoise_sprint

    s, channels = parts.settings, int(parts.transformer.config.in_channels)
    shape = channels, s.height // parts.pixels_per_latent, s.width // parts.pixels_per_latent
    latents = (denoise_sprint if parts.sprint else denoise)(
        parts.transformer,
        copy.deepcopy(parts.scheduler),
        initial_noise(seeds, shape),
        guidance,
        steps=steps,
        generators=image_generators(seeds),
    )
    return decode_latents(parts.vae, latents)


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

    def draw(images: int, steps: int, first: int = 0) -> Any:
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
            generator=image_generators(range(first, first + images)),
            max_sequence_length=s.max_sequence_length,
            complex_human_instruction=parts.instruction,
            use_resolution_binning=False,  # it would draw 512 pixels as 1024
            **more,
        ).images

    return draw


def theirs_in_batches(parts: Parts, batch: int) -> Draw:
    """As diffusers' pipeline draws many images: one call for each batch."""
    one = theirs(parts)

    def draw(images: int, steps: int, first: int = 0) -> Any:
        return [image for start in range(first, first + images, batch) for image in one(batch, steps, start)]

    return draw
