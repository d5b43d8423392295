"""What `sample` and `importance` share: a checkpoint loaded with its companions, prompts as conditions, images.

An image is a function of its checkpoint, prompt, seed and settings, bit for bit. What could make it depend on more is
how a matrix product of another size, or on another number of threads, rounds. So images are drawn in lots: always
`lot_size` images at once, the last lot filled up with copies that are thrown away, each prompt encoded by itself, and
small models on the CPU one lot a thread. Measured in fp32 on a CPU, single images and batches of 3, 8 and 32 drew
latents 2e-5 apart without lots, and one pixel value in 50,000 differed; in lots every PNG is the same.

What may still differ between two runs is the hardware and the version of torch; and for models too large for one
thread (`ONE_THREAD_PARAMETERS`), on a CPU, the number of threads.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from sanactl.diffusion.sampler import Guidance
    from sanactl.io.checkpoint import Checkpoint

__all__ = ["SamplingSettings", "Sana", "lot_size", "pick_device", "pixels_per_latent", "sampling_settings"]

# Published checkpoints without sampling defaults of their own: SANA's (facts of the paper, section 3.1).
PUBLISHED = {"height": 1024, "width": 1024, "steps": 20, "guidance_scale": 4.5, "max_sequence_length": 300}


# A lot is large enough to keep a device busy and no larger: at 1024 pixels one image has 1,024 latent tokens, and the
# paper's 4.8B model draws in batches of 10 only 9 % faster than one by one (0.26 images/s against 4.2 s).
LOT_TOKENS, LOT_IMAGES = 1024, 8
# Below this a CPU computes several lots at once, each on one thread, rather than one on all.
ONE_THREAD_PARAMETERS = 100_000_000


@dataclass(frozen=True)
class SamplingSettings:
    """Everything but checkpoint, prompt and seed that an image is a function of."""

    steps: int = 20
    guidance_scale: float = 4.5
    height: int = 1024
    width: int = 1024
    max_sequence_length: int = 300
    complex_human_instruction: bool = True
    flow_shift: float | None = None
    negative_prompt: str = ""


def sampling_settings(checkpoint: Checkpoint, **given: Any) -> SamplingSettings:
    """The checkpoint's own defaults, overridden by what is given and not None.

    A checkpoint that names no size gets 32 pixels a latent of its `sample_size`, the factor of SANA's autoencoder.

    Raises:
        UsageError: a height or width that is no whole number of latents.
    """
    defaults = _defaults(checkpoint)
    merged = {**defaults, **{k: v for k, v in given.items() if v is not None}}
    names = SamplingSettings.__dataclass_fields__
    settings = SamplingSettings(**{k: v for k, v in merged.items() if k in names})
    step = pixels_per_latent(checkpoint) * int(checkpoint.config.get("patch_size", 1))
    for what, pixels in (("height", settings.height), ("width", settings.width)):
        if pixels < step or pixels % step:
            raise UsageError(f"--{what} {pixels}: has to be a multiple of {step} for {checkpoint.path}")
    return settings


def _defaults(checkpoint: Checkpoint) -> dict[str, Any]:
    size = int(checkpoint.config.get("sample_size", 32)) * 32
    return {**PUBLISHED, "height": size, "width": size, **checkpoint.sampling}


def pixels_per_latent(checkpoint: Checkpoint) -> int:
    """Pixels a side of one latent: 32 for SANA's autoencoder, 8 for the built-in world's."""
    return max(1, int(_defaults(checkpoint)["height"]) // int(checkpoint.config.get("sample_size", 32)))


def lot_size(checkpoint: Checkpoint, settings: SamplingSettings) -> int:
    """How many images are computed together: a function of the resolution alone, never of how many there are."""
    side = pixels_per_latent(checkpoint) * int(checkpoint.config.get("patch_size", 1))
    tokens = (settings.height // side) * (settings.width // side)
    return max(1, min(LOT_IMAGES, LOT_TOKENS // max(tokens, 1)))


def pick_device(name: str | None) -> torch.device:
    """The device called `name`, or the best one there is.

    Raises:
        UsageError: no such device on this machine.
    """
    import torch

    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        mps = getattr(torch.backends, "mps", None)
        return torch.device("mps" if mps is not None and mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return device


class Sana:
    """A transformer and its companions, ready to sample.

    Args:
        checkpoint: what to load.
        settings: how to sample.
        device, dtype: where and in what the models run.
        decode: whether the autoencoder is wanted.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: SamplingSettings,
        *,
        device: torch.device,
        dtype: torch.dtype,
        decode: bool = True,
    ) -> None:
        from sanactl.diffusion.cpu import keep_freed_memory
        from sanactl.diffusion.loading import load_companions, load_transformer

        if device.type == "cpu":
            keep_freed_memory()
        self.settings, self.device = settings, device
        self.lot = lot_size(checkpoint, settings)
        parts: tuple[str, ...] = ("tokenizer", "text_encoder", "scheduler", *(("vae",) if decode else ()))
        self.companions = load_companions(checkpoint, parts=parts, device=device, dtype=dtype)
        self.transformer = load_transformer(checkpoint, device=device, dtype=dtype)
        if settings.flow_shift is not None:
            self.companions.scheduler = type(self.companions.scheduler).from_config(
                self.companions.scheduler.config, flow_shift=settings.flow_shift
            )
        self._one_thread_each = device.type == "cpu" and checkpoint.num_parameters < ONE_THREAD_PARAMETERS
        self._factor = pixels_per_latent(checkpoint)
        vae = self.companions.vae
        if vae is not None and 2 ** (len(vae.config.encoder_block_out_channels) - 1) != self._factor:
            raise InputError(
                f"{checkpoint.path}: its autoencoder does not make {self._factor} pixels of a latent",
                hint="name the autoencoder that it was trained with",
            )
        self.instruction = None
        if settings.complex_human_instruction:
            from sanactl.diffusion.text import human_instruction

            self.instruction = human_instruction()
        # Images of a prompt come one after the other: a few prompts remembered are each encoded once.
        self._encoded = lru_cache(maxsize=64)(self._encode)

    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a latent."""
        channels = int(self.transformer.config.in_channels)
        return channels, self.settings.height // self._factor, self.settings.width // self._factor

    def guidance(self, prompts: Sequence[str]) -> Guidance:
        """Conditions for a batch of prompts."""
        import torch

        from sanactl.diffusion.sampler import Guidance

        text, mask = zip(*(self._encoded(prompt, False) for prompt in prompts), strict=True)
        negative = self._encoded(self.settings.negative_prompt, True)
        return Guidance(torch.cat(text), torch.cat(mask), *negative, self.settings.guidance_scale)

    def _encode(self, prompt: str, negative: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """One prompt, by itself, so that its embedding does not depend on others: [1, T, D] and [1, T]."""
        from sanactl.diffusion.text import encode_prompts

        return encode_prompts(
            self.companions.tokenizer,
            self.companions.text_encoder,
            [prompt],
            max_sequence_length=self.settings.max_sequence_length,
            instruction=None if negative else self.instruction,
        )

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Draws one image for each prompt and seed, lot by lot in order: uint8 [lot or fewer, height, width, 3]."""
        from sanactl.diffusion.cpu import single_threaded

        with ExitStack() as stack:
            threads = stack.enter_context(single_threaded()) if self._one_thread_each else 1
            # Encoded here and not by the workers: a tokenizer is not for several threads.
            lots = [
                (self.guidance(_filled(prompts[i : i + self.lot], self.lot)), seeds[i : i + self.lot])
                for i in range(0, len(seeds), self.lot)
            ]
            workers = min(threads, len(lots))
            if workers < 2:
                yield from itertools.starmap(self._draw_lot, lots)
                return
            pool = ThreadPoolExecutor(workers)
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            yield from pool.map(self._draw_lot, *zip(*lots, strict=True))

    def _draw_lot(self, guidance: Guidance, seeds: Sequence[int]) -> NDArray[np.uint8]:
        from sanactl.diffusion.sampler import decode_latents, denoise, initial_noise

        latents = denoise(
            self.transformer,
            copy.deepcopy(self.companions.scheduler),  # it remembers past steps
            initial_noise(_filled(seeds, self.lot), self.latent_shape()),
            guidance,
            steps=self.settings.steps,
        )
        pixels: NDArray[np.uint8] = decode_latents(self.companions.vae, latents).numpy()
        return pixels[: len(seeds)]


def _filled(things: Sequence[Any], size: int) -> list[Any]:
    """The things, and copies of the last one up to `size`."""
    return [*things, *[things[-1]] * (size - len(things))]
