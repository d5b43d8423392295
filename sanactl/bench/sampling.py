"""Measuring images a second with random weights, for sanactl and for diffusers' `SanaPipeline` (the paper's table 1)."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch

from sanactl.bench.optim_cost import Timer, peak_memory, reset_peak
from sanactl.bench.programs import Draw, ours, random_parts, theirs
from sanactl.bench.random_models import Models, make_transformer
from sanactl.bench.rows import Rows
from sanactl.model.sampling_settings import SamplingSettings

__all__ = ["measure_sampling"]


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
    around = Models(device, dtype, around="tiny" if tiny else "published")
    for size in sizes:
        transformer = make_transformer(size, device, dtype)
        parts = random_parts(around, transformer, SamplingSettings())
        for batch in batches:
            for side in pixels:
                sized = parts.sized(side, side)
                ways = {"SanaPipeline": theirs(sized), "sanactl": ours(sized)}
                times: dict[str, float] = {}
                for name, draw in ways.items():
                    row = {"model": size, "pixels": side, "batch": batch, "way": name}
                    try:
                        found = _time(draw, batch, steps, device)
                    except torch.OutOfMemoryError:
                        rows.add("sampling", **row, fault="out of memory")
                        continue
                    times[name] = found["seconds"]
                    if len(times) == len(ways):
                        found["share_of_theirs"] = times["sanactl"] / times["SanaPipeline"]
                    rows.add("sampling", **row, **found)
        del transformer, parts, sized, ways
        gc.collect()


def _time(draw: Draw, batch: int, steps: int, device: torch.device) -> dict[str, float]:
    draw(batch, 2)
    reset_peak(device)
    times = []
    for _ in range(3 if batch == 1 else 1):
        timer = Timer(device)
        draw(batch, steps)
        times.append(timer.stop()[0] / 1000)
    seconds = min(times)
    found = {"seconds": seconds, "images_per_second": batch / seconds}
    peak = peak_memory(device)
    return found if peak is None else {**found, "peak_GB": peak / 1e9}
