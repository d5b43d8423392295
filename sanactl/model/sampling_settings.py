"""The sampling settings, their defaults and their checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError, SanactlError, UsageError
from sanactl.files.images import MAX_PIXELS
from sanactl.records.prompts import MAX_PROMPT
from sanactl.records.records import NOT_UTF8

if TYPE_CHECKING:
    from sanactl.checkpoint.open import Checkpoint

__all__ = [
    "MAX_FIXED_BATCH", "TEXT_PADDING", "SamplingSettings", "fixed_batch_size", "is_sprint", "pixels_per_latent", "published_settings",
    "sampling_settings", "tile_size", "with_fixed_batch",
]  # fmt: skip

# Published checkpoints without sampling defaults of their own: SANA's (facts of the paper, section 3.1).
PUBLISHED = {"height": 1024, "width": 1024, "steps": 20, "guidance_scale": 4.5, "max_sequence_length": 300}
# SANA-Sprint's, as in SanaSprintPipeline.
SPRINT = {**PUBLISHED, "steps": 2}

# A fixed batch is just large enough to keep a device busy: so many latent tokens for a model of at most so many
# parameters, and at most so many images. At 1024 pixels (1,024 tokens) the paper's table 1 has batches of 10 against single
# images 1.53 times as fast at 0.6B, 1.2 times at 1.6B and 1.09 times at 4.8B.
FIXED_BATCH_TOKENS = ((1e9, 8192), (2.5e9, 4096), (math.inf, 2048))
FIXED_BATCH_IMAGES = 8
TEXT_PADDING = ("trim", "full")

# Whether the VAE decodes in tiles; by default above this number of pixels a side.
TILING = ("auto", "on", "off")
WHOLE_PIXELS = 1024

MAX_STEPS = 1000  # the timesteps that SANA is trained with
MAX_FIXED_BATCH = 1024


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
        text_padding: "trim": the text is padded to the next of a few lengths; "full": to `max_sequence_length`.
        fixed_batch: the number of images that are computed together; None until it is known how many images are wanted
            (`with_fixed_batch`).
        vae_tiling: whether the VAE decodes an image in tiles (`tile_size`), which changes pixels at their seams.
        compile: whether the transformer is compiled, which changes rounding.
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
    text_padding: str = "trim"
    fixed_batch: int | None = None
    vae_tiling: bool = False
    compile: bool = False

    def identity(self) -> dict[str, Any]:
        """The settings for comparing images. Later settings are left out at their defaults: older images stay the same."""
        found = asdict(self)
        return {k: v for k, v in found.items() if v or k not in ("vae_tiling", "compile")}


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
    "text_padding": lambda value: None if value in TEXT_PADDING else f"has to be {' or '.join(TEXT_PADDING)}",
    "fixed_batch": lambda value: None if value is None else _whole(1, MAX_FIXED_BATCH)(value),
    "vae_tiling": lambda value: None if value in TILING else f"has to be one of {', '.join(TILING)}",
    "compile": lambda value: None if isinstance(value, bool) else "has to be true or false",
}
# `instruction` is an option of the command line only, because training would not know of one in the header. Others say how
# an image is computed rather than which.
_IN_HEADER = frozenset(_FAULTS) - {"instruction", "text_padding", "fixed_batch", "vae_tiling", "compile"}
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
    tiling = given.pop("vae_tiling", "auto")
    settings = SamplingSettings(**{**defaults, **given})
    large = max(settings.height, settings.width) > WHOLE_PIXELS
    settings = replace(settings, vae_tiling=tiling == "on" or (tiling == "auto" and large))
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


def tile_size(settings: SamplingSettings) -> tuple[int, int]:
    """Pixels a side of a tile, and from one tile to the next: of 1024 for large images, else of 512 as in diffusers."""
    return (1024, 896) if max(settings.height, settings.width) > WHOLE_PIXELS else (512, 448)


def is_sprint(checkpoint: Checkpoint) -> bool:
    """Whether it is a SANA-Sprint checkpoint: its transformer takes the guidance scale as an input."""
    return checkpoint.config.guidance_embeds


def pixels_per_latent(checkpoint: Checkpoint) -> int:
    """Pixels a side of one latent: 32 for SANA's autoencoder, 8 for the built-in world's."""
    return max(1, int(_defaults(checkpoint)["height"]) // checkpoint.config.sample_size)


def fixed_batch_size(checkpoint: Checkpoint, settings: SamplingSettings) -> int:
    """The number of images in a fixed batch: that of the settings, or one that follows from resolution and parameters."""
    if settings.fixed_batch is not None:
        return settings.fixed_batch
    side = pixels_per_latent(checkpoint) * checkpoint.config.patch_size
    tokens = (settings.height // side) * (settings.width // side)
    most = next(tokens for size, tokens in FIXED_BATCH_TOKENS if checkpoint.num_parameters <= size)
    return max(1, min(FIXED_BATCH_IMAGES, most // max(tokens, 1)))


def with_fixed_batch(checkpoint: Checkpoint, settings: SamplingSettings, images: int) -> SamplingSettings:
    """The settings with a fixed batch for a run of so many images: `fixed_batch_size`, or less for fewer images.

    Fewer images get the next power of two, so that one image costs one image.
    """
    if settings.fixed_batch is not None:
        return settings
    size = min(fixed_batch_size(checkpoint, settings), 1 << max(0, images - 1).bit_length())
    return replace(settings, fixed_batch=size)
