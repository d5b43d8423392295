"""A checkpoint loaded with its components, for `sample` and `importance`: it encodes prompts and draws images.

The text encoder is in memory only while prompts are encoded (`sanactl.model.conditions`). On a CPU, large models keep
their weights in their file's dtype and compute in fp32 (`sanactl.model.stored`).

An image is a function of its checkpoint, prompt, seed and settings, bit for bit. A matrix product rounds differently in
another size or on another number of threads. So images are drawn in fixed batches: always `fixed_batch_size` images at
once, with copies in the last batch that are thrown away. Each prompt is encoded by itself. Small models on the CPU use
one thread for each fixed batch. Measured in fp32 on a CPU: without fixed batches, single images and batches of 3, 8 and
32 drew latents 2e-5 apart, and one pixel value in 50,000 differed. In fixed batches every PNG is the same.

Two runs may still differ by hardware and version of torch. A model that is too large for one thread on a CPU
(`sanactl.model.cpu.ONE_THREAD_PARAMETERS`) may also differ by the number of threads.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError
from sanactl.model.conditions import TextConditions, filled, fixed_batches
from sanactl.model.devices import open_device
from sanactl.model.offload import Offload
from sanactl.model.sampling_settings import (
    SamplingSettings,
    fixed_batch_size,
    is_sprint,
    pixels_per_latent,
    sampling_settings,
    tile_size,
)

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from sanactl.checkpoint.open import Checkpoint
    from sanactl.model.sampler import Guidance

__all__ = [
    "SamplingSettings", "Sana", "fixed_batch_size", "pick_device", "pixels_per_latent", "sampling_settings",
]  # fmt: skip


def pick_device(name: str | None) -> torch.device:
    """The device called `name`, or the best device of this machine.

    Raises:
        UsageError: this machine has no such device.
    """
    import torch

    if name is not None:
        return open_device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    mps = getattr(torch.backends, "mps", None)
    return torch.device("mps" if mps is not None and mps.is_available() else "cpu")


class Sana:
    """A transformer and its components, ready to sample.

    Args:
        checkpoint: the checkpoint to load.
        settings: the sampling settings.
        device, dtype: of the models.
        decode: whether to load the autoencoder.
        offload: where models wait (`sanactl.model.offload.OFFLOADS`); images do not depend on it.

    Attributes:
        texts: the conditions of prompts.
        components: tokenizer, scheduler and autoencoder.
        fixed_batch: the number of images in a fixed batch.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: SamplingSettings,
        *,
        device: torch.device,
        dtype: torch.dtype,
        decode: bool = True,
        offload: str = "none",
    ) -> None:
        from sanactl.model.compiled import check_compiler
        from sanactl.model.cpu import keep_freed_memory, one_thread_each, return_freed_memory
        from sanactl.model.loading import component_dtype, load_components
        from sanactl.model.schedulers import prepared_scheduler

        self.one_thread_each = one_thread_each(device, checkpoint.num_parameters)
        if self.one_thread_each:
            keep_freed_memory()
        elif device.type == "cpu":
            return_freed_memory()
        if settings.compile:
            check_compiler(device)
        self.settings, self.device, self.name = settings, device, str(checkpoint.path)
        self._checkpoint, self._dtype, self._offload = checkpoint, dtype, Offload(offload, device)
        self.fixed_batch = fixed_batch_size(checkpoint, settings)
        parts: tuple[str, ...] = ("tokenizer", "scheduler", *(("vae",) if decode else ()))
        self.components = load_components(
            checkpoint, parts=parts, device=self._offload.load_on, dtype=component_dtype(dtype, device)
        )
        self.sprint = is_sprint(checkpoint)
        self.components.scheduler = prepared_scheduler(
            self.components.scheduler,
            flow_shift=settings.flow_shift,
            sprint=self.sprint,
            steps=settings.steps,
        )
        self._factor = pixels_per_latent(checkpoint)
        vae = self.components.vae
        if vae is not None and 2 ** (len(vae.config.encoder_block_out_channels) - 1) != self._factor:
            raise InputError(
                f"{checkpoint.path}: its VAE does not make {self._factor} pixels of a latent",
                hint="name the autoencoder that it was trained with",
            )
        if vae is not None:
            self._offload.place(vae, inside="decoder")
            if settings.vae_tiling:
                size, step = tile_size(settings)
                vae.enable_tiling(size, size, step, step)
        self.texts = TextConditions(
            self.name,
            self.components.tokenizer,
            self._load_encoder,
            settings,
            width=int(checkpoint.config.caption_channels),
            sprint=self.sprint,
        )
        self._transformer: Any = None

    @property
    def transformer(self) -> Any:
        """The transformer, loaded at first use.

        A large one is freed where prompts have to be encoded, and then loaded again. Who changes it (hooks) has to
        encode all prompts before (`texts.prepare`).
        """
        if self._transformer is None:
            from sanactl.model.loading import load_transformer
            from sanactl.model.sampling_transformer import SamplingTransformer

            # A compiled layer has no hooks, and other programs that share the modules expect one dtype.
            plain = self.one_thread_each or self.settings.compile or self.texts.stays
            keep = self.device.type == "cpu" and not plain
            loaded = load_transformer(
                self._checkpoint, device=self._offload.load_on, dtype=self._dtype, keep=keep
            )
            self._transformer = self._offload.place(SamplingTransformer(loaded), blocks=True)
            if self.settings.compile:
                from sanactl.model.compiled import compile_blocks

                compile_blocks(self._transformer)
        return self._transformer

    def _load_encoder(self) -> Any:
        from sanactl.model.loading import component_dtype, load_components
        from sanactl.model.memory import free_memory
        from sanactl.model.stored import LARGE

        # One that is compiled stays: the next one would be compiled again.
        large = self._checkpoint.num_parameters >= LARGE and not self.settings.compile
        if large and self._transformer is not None:
            self._offload.forget(self._transformer)
            self._transformer = None
            free_memory()
        # It is alone on the device, so it needs hooks only if even one model is too large.
        self._offload.make_room()
        blockwise = self._offload.kind == "group"
        found = load_components(
            self._checkpoint,
            parts=("text_encoder",),
            device=self._offload.load_on if blockwise else self.device,
            dtype=component_dtype(self._dtype, self.device),
            keep=self.device.type == "cpu" and not self.texts.stays,
        ).text_encoder
        return self._offload.place(found) if blockwise else found

    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a latent."""
        channels = int(self._checkpoint.config.in_channels)
        return channels, self.settings.height // self._factor, self.settings.width // self._factor

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int]
    ) -> Iterator[tuple[list[int], NDArray[np.uint8]]]:
        """Draw one image for each prompt and seed in fixed batches, whose texts have one length each.

        Yields:
            the places of the images, and uint8 [B, height, width, 3], RGB. B is `fixed_batch` or less.
        """
        from sanactl.model.cpu import Workers

        size = self.fixed_batch

        def batch(places: list[int]) -> tuple[list[int], Guidance, list[int]]:
            """What a fixed batch is drawn of. Prompts are encoded, and models loaded, in this thread."""
            here = [prompts[i] for i in places]
            self.texts.prepare(here, prompts)
            assert self.transformer is not None
            return places, self.texts.guidance(filled(here, size)), [seeds[i] for i in places]

        batches = map(batch, fixed_batches(map(self.texts.text_length, prompts), size))
        if not self.one_thread_each:
            yield from itertools.starmap(self._draw_batch, batches)
            return
        with Workers() as workers:
            yield from workers.map(lambda batch: self._draw_batch(*batch), batches)

    def denoise(
        self,
        guidance: Guidance,
        seeds: Sequence[int],
        on_step: Callable[[int, float], None] | None = None,
    ) -> torch.Tensor:
        """The scaled latents of one image for each prompt and seed: float32 [B, C, H, W].

        Raises:
            InputError: latents are not finite; for example, the weights need another dtype.
        """
        import torch

        from sanactl.model.compiled import compiling
        from sanactl.model.sampler import denoise, draw_noise, image_generators
        from sanactl.model.sprint import denoise_sprint

        generators = image_generators(seeds)
        self._offload.make_room(self.transformer)
        with compiling() if self.settings.compile else nullcontext():
            latents = (denoise_sprint if self.sprint else denoise)(
                self.transformer,
                copy.deepcopy(self.components.scheduler),  # it keeps state between steps
                draw_noise(generators, self.latent_shape()),
                guidance,
                steps=self.settings.steps,
                generators=generators,
                on_step=on_step,
            )
        if not bool(torch.isfinite(latents).all()):
            raise InputError(
                f"{self.name} gives values that are not finite in {str(self._dtype).removeprefix('torch.')}",
                hint="try another --dtype: bf16, or fp16 for SANA-1.0; else its weights are damaged",
            )
        return latents

    def _draw_batch(
        self, places: list[int], guidance: Guidance, seeds: Sequence[int]
    ) -> tuple[list[int], NDArray[np.uint8]]:
        from sanactl.model.sampler import decode_latents

        latents = self.denoise(guidance, filled(seeds, self.fixed_batch))
        self._offload.make_room(self.components.vae)
        pixels: NDArray[np.uint8] = decode_latents(self.components.vae, latents).numpy()
        return places, pixels[: len(seeds)]
