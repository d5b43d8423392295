"""The sampling settings, their defaults and their checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError, SanactlError, UsageError
from sanactl.files.images import MAX_PIXELS
from sanactl.records.prompts import MAX_PROMPT
from sanactl.records.records import NOT_UTF8

if TYPE_CHECKING:
    from sanactl.checkpoint.open import Checkpoint

__all__ = [
    "SamplingSettings", "fixed_batch_size", "is_sprint", "pixels_per_latent", "published_settings", "sampling_settings",
]  # fmt: skip

# Published checkpoints without sampling defaults of their own: SANA's (facts of the paper, section 3.1).
PUBLISHED = {"height": 1024, "width": 1024, "steps": 20, "guidance_scale": 4.5, "max_sequence_length": 300}
# SANA-Sprint's, as in SanaSprintPipeline.
SPRINT = {**PUBLISHED, "steps": 2}

# A fixed batch is just large enough to keep a device busy. At 1024 pixels one image has 1,024 latent tokens, and the
# paper's 4.8B model is only 9 % faster in batches of 10 than one by one (0.26 images/s against 4.2 s an image).
FIXED_BATCH_TOKENS, FIXED_BATCH_IMAGES = 1024, 8

MAX_STEPS = 1000  # the timesteps that SANA is trained with


@dataclass(frozen=True)
class SamplingSettings:
    """The settings that decide an image, besides its checkpoint, prompt and seed.

    Attributes:
        steps: number of sampling steps (num_inference_steps).
        guidance_scale: of classifier-free guidance; 1 or less means no guidance. SANA-Sprint's transformer takes it as an input.
        height, width: of the image, in pixels.
        max_sequence_length: number of prompt tokens that the transformer gets.
        complex_human_instruction: whether an instruction is put before every prompt for the text encoder.
        instruction: this instruction; None for SANA's own.
        flow_shift: of the scheduler; None for the scheduler's own.
        negative_prompt: the prompt of the unconditional half of guidance; empty by default.
    """

    steps: int = 20
    guidance_scale: float = 4.5
    height: int = 1024
    width: int = 1024
    max_sequence_length: int = 300
    complex_human_instruction: bool = True
    instruction: str | None = None
    flow_shift: float | None = None
    negative_prompt: str = ""


def _whole(least: int, most: int) -> Callable[[Any], str | None]:
    def fault(value: Any) -> str | None:
        fits = type(value) is int and least <= value <= most
        return None if fits else f"has to be a whole number from {least:,} to {most:,}"

    return fault


def _number(least: float, most: float) -> Callable[[Any], str | None]:
    def fault(value: Any) -> str | None:
        fits = type(value) in (int, float) and math.isfinite(value) and least <= value <= most
        return None if fits else f"has to be a number from {least:g} to {most:,.0f}"

    return fault


def _text(value: Any) -> str | None:
    if not isinstance(value, str) or NOT_UTF8.search(value):
        return "has to be text in UTF-8"
    return None if len(value) <= MAX_PROMPT else f"has to be at most {MAX_PROMPT:,} characters"


# What is wrong with a value, or None.
_FAULTS: Mapping[str, Callable[[Any], str | None]] = {
    "steps": _whole(1, MAX_STEPS),
    "guidance_scale": _number(-1000, 1000),
    "height": _whole(1, 2**16),
    "width": _whole(1, 2**16),
    "max_sequence_length": _whole(2, 8192),
    "complex_human_instruction": lambda value: None if isinstance(value, bool) else "has to be true or false",
    "instruction": lambda value: None if value is None else _text(value),
    "flow_shift": lambda value: None if value is None else _number(0.001, 1000)(value),
    "negative_prompt": _text,
}
# `instruction` is an option of the command line only, because training would not know of one in the header.
_IN_HEADER = frozenset(_FAULTS) - {"instruction"}
_OPTIONS = {"guidance_scale": "guidance", "negative_prompt": "negative"}


def sampling_settings(checkpoint: Checkpoint, **given: Any) -> SamplingSettings:
    """The checkpoint's own defaults, replaced by the values in `given` that are not None.

    A checkpoint that names no size gets 32 pixels a latent of its `sample_size`, the factor of SANA's autoencoder.

    Raises:
        UsageError: a value is out of range or has no effect on this checkpoint, or height or width is not a whole number
            of latents.
        InputError: the checkpoint's own defaults are out of range.
    """
    step = pixels_per_latent(checkpoint) * checkpoint.config.patch_size
    settings = _checked(_defaults(checkpoint), given, step, str(checkpoint.path))
    if given.get("negative_prompt"):
        if is_sprint(checkpoint):
            raise UsageError("--negative has no effect on a SANA-Sprint checkpoint: its guidance is embedded")
        if settings.guidance_scale <= 1:
            raise UsageError("--negative has no effect without guidance", hint="give a --guidance above 1")
    return settings


def published_settings(name: str, step: int, **given: Any) -> SamplingSettings:
    """SANA's published defaults, replaced by the values in `given` that are not None: for a model without a checkpoint.

    Args:
        name: what errors call the model.
        step: height and width are multiples of so many pixels.

    Raises:
        UsageError: a value is out of range.
    """
    return _checked(PUBLISHED, given, step, name)


def _checked(defaults: Mapping[str, Any], given: Mapping[str, Any], step: int, name: str) -> SamplingSettings:
    given = {key: value for key, value in given.items() if value is not None}
    for key, value in given.items():
        _check(key, value, UsageError, f"--{_OPTIONS.get(key, key).replace('_', '-')}")
    settings = SamplingSettings(**{**defaults, **given})
    for what, pixels in (("height", settings.height), ("width", settings.width)):
        if pixels < step or pixels % step:
            raise UsageError(f"--{what} {pixels}: has to be a multiple of {step} for {name}")
    if settings.height * settings.width > MAX_PIXELS:
        raise UsageError(f"{settings.width} x {settings.height} pixels: more than {MAX_PIXELS:,}")
    return settings


def _check(key: str, value: Any, error: type[SanactlError], where: str) -> None:
    if fault := _FAULTS[key](value):
        raise error(f"{where} {str(value)[:60]!r}: {fault}")


def _defaults(checkpoint: Checkpoint) -> dict[str, Any]:
    size = checkpoint.config.sample_size * 32
    stored = {k: v for k, v in checkpoint.sampling.items() if k in _IN_HEADER and v is not None}
    for key, value in stored.items():
        _check(key, value, InputError, f"{checkpoint.path}: its sampling settings: {key}")
    return {**(SPRINT if is_sprint(checkpoint) else PUBLISHED), "height": size, "width": size, **stored}


def is_sprint(checkpoint: Checkpoint) -> bool:
    """Whether it is a SANA-Sprint checkpoint: its transformer takes the guidance scale as an input."""
    return checkpoint.config.guidance_embeds


def pixels_per_latent(checkpoint: Checkpoint) -> int:
    """Pixels a side of one latent: 32 for SANA's autoencoder, 8 for the built-in world's."""
    return max(1, int(_defaults(checkpoint)["height"]) // checkpoint.config.sample_size)


def fixed_batch_size(checkpoint: Checkpoint, settings: SamplingSettings) -> int:
    """The number of images in a fixed batch. It depends only on the resolution, not on the number of images."""
    side = pixels_per_latent(checkpoint) * checkpoint.config.patch_size
    tokens = (settings.height // side) * (settings.width // side)
    return max(1, min(FIXED_BATCH_IMAGES, FIXED_BATCH_TOKENS // max(tokens, 1)))
