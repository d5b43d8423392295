"""Measuring images a second with random weights, for sanactl and for diffusers' `SanaPipeline` (the paper's table 1)."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch

from sanactl.bench.optim_cost import Timer, peak_memory, reset_peak
from sanactl.bench.random_models import Models, make_transformer
from sanactl.bench.rows import Rows
from sanactl.model.sampler import Guidance, decode_latents, denoise, initial_noise
from sanactl.model.text import encode_prompts, human_instruction

__all__ = ["measure_sampling"]

PROMPT = "a photo of a red apple and a green vase on a wooden table"
SCALE = 4.5


def measure_sampling(
    rows: Rows,
    device: torch.device,
    sizes: Sequence[str],
    *,
    pixels: Sequence[int] = (1024, 512),
    batches: Sequence[int] = (1, 10),
    steps: int = 20,
    tiny: bool = False,
) -> None:
    """Add rows to the table "sampling", one for each program, model, resolution and batch size.

    Both programs go from a prompt to uint8 images on the CPU: the text encoder (Gemma 2 2B in its published shape)
    runs once for the prompt and once for the empty one, the transformer `steps` times with guidance, the autoencoder
    once. Everything is bf16 (fp32 on a CPU). The first call of each kind, with two steps, is not timed. One image is drawn three times
    and a batch once; the shortest time counts. `share_of_theirs` is sanactl's time divided by `SanaPipeline`'s.

    Args:
        sizes: transformers of `random_models.CONFIGS`.
        pixels: sides of the square images.
        batches: numbers of images of one prompt that are drawn at once.
        tiny: use a tiny text encoder and autoencoder, for a trial.
    """
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    around = Models(device, dtype, tiny=tiny)
    for size in sizes:
        transformer = make_transformer(size, device, dtype)
        ways = {
            "SanaPipeline": _theirs(around, transformer),
            "sanactl": _ours(around, transformer, device),
        }
        for batch in batches:
            for side in pixels:
                times: dict[str, float] = {}
                for name, draw in ways.items():
                    row = {"model": size, "pixels": side, "batch": batch, "way": name}
                    try:
                        found = _time(draw, side, batch, steps, device)
                    except torch.OutOfMemoryError:
                        rows.add("sampling", **row, fault="out of memory")
                        continue
                    times[name] = found["seconds"]
                    if len(times) == len(ways):
                        found["share_of_theirs"] = times["sanactl"] / times["SanaPipeline"]
                    rows.add("sampling", **row, **found)
        del transformer, ways
        gc.collect()


Draw = Callable[[int, int, int], Any]


def _time(draw: Draw, side: int, batch: int, steps: int, device: torch.device) -> dict[str, float]:
    draw(side, batch, 2)
    reset_peak(device)
    times = []
    for _ in range(3 if batch == 1 else 1):
        timer = Timer(device)
        draw(side, batch, steps)
        times.append(timer.stop()[0] / 1000)
    seconds = min(times)
    found = {"seconds": seconds, "images_per_second": batch / seconds}
    peak = peak_memory(device)
    return found if peak is None else {**found, "peak_GB": peak / 1e9}


def _theirs(around: Models, transformer: Any) -> Draw:
    from diffusers import SanaPipeline

    pipeline = SanaPipeline(
        tokenizer=around.tokenizer,
        text_encoder=around.text_encoder,
        vae=around.vae,
        transformer=transformer,
        scheduler=copy.deepcopy(around.scheduler),
    )
    pipeline.set_progress_bar_config(disable=True)

    def draw(side: int, batch: int, steps: int) -> Any:
        return pipeline(
            PROMPT,
            num_images_per_prompt=batch,
            num_inference_steps=steps,
            guidance_scale=SCALE,
            height=side,
            width=side,
            generator=torch.Generator().manual_seed(0),
            use_resolution_binning=False,  # it would draw 512 pixels as 1024
        ).images

    return draw


def _ours(around: Models, transformer: Any, device: torch.device) -> Draw:
    """Draw a fixed batch as `sanactl sample` does."""
    instruction = human_instruction()

    def draw(side: int, batch: int, steps: int) -> Any:
        text, mask = encode_prompts(around.tokenizer, around.text_encoder, [PROMPT], instruction=instruction)
        no_text, no_mask = encode_prompts(around.tokenizer, around.text_encoder, [""])
        latent = side // around.pixels_per_latent
        noise = initial_noise(range(batch), (transformer.config.in_channels, latent, latent))
        guidance = Guidance(text.expand(batch, -1, -1), mask.expand(batch, -1), no_text, no_mask, SCALE)
        latents = denoise(transformer, copy.deepcopy(around.scheduler), noise, guidance, steps=steps)
        return decode_latents(around.vae, latents)

    return draw
