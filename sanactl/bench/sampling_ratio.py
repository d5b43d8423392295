"""`bench sample`: the time of many images of one prompt, for sanactl and for diffusers' pipeline in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sanactl.bench.optim_cost import Timer
from sanactl.bench.programs import Parts, ours, ours_in_batches, their_name, theirs, theirs_in_batches
from sanactl.bench.sampling_parts import our_places, seconds_of_parts, their_places
from sanactl.errors import SanactlError
from sanactl.files.progress import SILENT, Progress
from sanactl.records.records import Record
from sanactl.records.scores import new_score

__all__ = ["MODELS", "Turns", "measure_ratio"]

BATCH = 8
_LONG = 60.0  # seconds; the time that is left is said if it is longer
# The mean difference of pixels, in 255ths, above which the two programs do not draw the same images.
_CLOSE = {torch.float32: 0.1, torch.float16: 8.0, torch.bfloat16: 8.0}


def _base(device: torch.device, dtype: torch.dtype) -> Parts:
    from sanactl.checkpoint.builtin import asset
    from sanactl.checkpoint.open import open_checkpoint
    from sanactl.model.conditioning import Sana
    from sanactl.model.sampling_settings import sampling_settings

    base = open_checkpoint(asset("base.st"))
    return Parts.of(Sana(base, sampling_settings(base), device=device, dtype=dtype))


def _random(size: str, pixels: int) -> Callable[[torch.device, torch.dtype], Parts]:
    def made(device: torch.device, dtype: torch.dtype) -> Parts:
        from sanactl.bench.programs import random_parts
        from sanactl.bench.random_models import Models, around_of, make_transformer
        from sanactl.model.sampling_settings import SamplingSettings

        settings = SamplingSettings(height=pixels, width=pixels)
        around = Models(device, dtype, around=around_of(size))
        return random_parts(around, make_transformer(size, device, dtype), settings)

    return made


# What can be measured: the built-in base, and random weights with 300 tokens of text at 512 pixels.
MODELS: Mapping[str, Callable[[torch.device, torch.dtype], Parts]] = {
    "mid": _random("mid", 512),
    "base": _base,
    "tiny": _random("tiny", 64),
}


@dataclass(frozen=True)
class Turns:
    """How the programs take turns.

    Attributes:
        images: of one prompt in a round, a multiple of the batch.
        batch: of both programs.
        steps: of the sampler.
        rounds: how often each program draws the images.
    """

    images: int = 32
    batch: int = BATCH
    steps: int = 20
    rounds: int = 3


def measure_ratio(
    models: Sequence[str],
    turns: Turns,
    *,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress = SILENT,
) -> Iterator[Record]:
    """Draws the images of one prompt with both programs in turns, after a check that the images are the same.

    sanactl encodes the prompt once for all images and, on a CPU with a small model, computes a batch on each core;
    diffusers' pipeline is called for each batch. Both have the same modules, seeds, dtype and threads.

    Yields:
        a `sampling_ratio` score for each model: sanactl's time over that of diffusers, the median over rounds, with
        `ratio_range`, `seconds` and `their_seconds` (medians), `cpu_ratio` (the same of processor time, on a CPU), and
        `parts` and `their_parts`, seconds of one batch.

    Raises:
        SanactlError: the programs do not draw the same images.
    """
    from sanactl.model.hardware import hardware_facts

    for name in models:
        progress.start(2 * (turns.rounds + 1), f"drawing with {name}")
        try:
            parts = MODELS[name](device, dtype)
            own, other = ours_in_batches(parts, turns.batch), theirs_in_batches(parts, turns.batch)
            apart = _apart(own(turns.batch, turns.steps), other(turns.batch, turns.steps))
            if not apart <= _CLOSE[dtype]:
                raise SanactlError(
                    f"{name}: images of sanactl and of {their_name(parts)} differ by {apart:.2g} of 255 in the mean",
                    hint="their times cannot be compared; `sanactl doctor` checks this machine",
                )
            progress.advance(2)
            taken: tuple[list[tuple[float, float | None]], ...] = [], []
            for _ in range(turns.rounds):
                for draw, times in zip((own, other), taken, strict=True):
                    timer = Timer(device)
                    draw(turns.images, turns.steps)
                    times.append(timer.stop())
                    if len(taken[0]) == 1 and not taken[1]:
                        _tell_time(name, times[0][0] / 1000, turns, progress)
                    progress.advance(1)
            found = {
                "parts": seconds_of_parts(ours(parts), our_places(parts), turns.batch, turns.steps, device),
                "their_parts": seconds_of_parts(
                    theirs(parts), their_places(parts), turns.batch, turns.steps, device
                ),
            }
        finally:
            progress.close()
        yield _score(name, parts, turns, taken, found, apart) | {
            "device": str(device),
            "dtype": str(dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            **hardware_facts(device),
        }


def _tell_time(name: str, seconds: float, turns: Turns, progress: Progress) -> None:
    """Say how long a model takes, after its first turn, if that is long. The other program's turns are taken to be as long."""
    left = seconds * (2 * turns.rounds - 1 + 2 * turns.batch / turns.images)
    if left >= _LONG:
        progress.note(f"{name}: a turn takes {seconds:.0f} s, so about {left / 60:.0f} minutes are left")


def _score(
    name: str,
    parts: Parts,
    turns: Turns,
    taken: Sequence[Sequence[tuple[float, float | None]]],
    found: Mapping[str, Mapping[str, float]],
    apart: float,
) -> Record:
    seconds = [[wall for wall, _ in one] for one in taken]
    cpu = [[used for _, used in one if used is not None] for one in taken]
    ratios = _ratios(seconds)
    return new_score(
        "sampling_ratio",
        _brief(statistics.median(ratios)),
        ci=None,
        model=name,
        program=their_name(parts),
        images=turns.images,
        batch=turns.batch,
        steps=turns.steps,
        height=parts.settings.height,
        width=parts.settings.width,
        ratio_range=[_brief(min(ratios)), _brief(max(ratios))],
        seconds=_brief(statistics.median(seconds[0]) / 1000),
        their_seconds=_brief(statistics.median(seconds[1]) / 1000),
        cpu_ratio=_brief(statistics.median(_ratios(cpu))) if cpu[0] else None,
        apart=_brief(apart),
        **{key: {part: _brief(value) for part, value in values.items()} for key, values in found.items()},
    )


def _ratios(times: Sequence[Sequence[float]]) -> list[float]:
    return [a / b for a, b in zip(*times, strict=True)]


def _apart(own: Any, other: Sequence[Any]) -> float:
    """The mean difference of two batches of images, in 255ths."""
    theirs_ = np.stack([np.asarray(image) for image in other]).astype(int)
    return float(np.abs(own.numpy().astype(int) - theirs_).mean())


def _brief(value: float) -> float:
    return float(f"{value:.4g}")
