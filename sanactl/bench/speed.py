"""The paper's table 1: throughput and latency of a checkpoint, or of random weights in a published shape.

Latency is that of one image, throughput that of a batch, from the text to pixels on the CPU. sanactl and diffusers'
pipeline take turns in one process, with the same modules, so that their ratio does not depend on what else the machine
does. Weights do not change the speed.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from sanactl.bench.optim_cost import Timer, free_memory, peak_memory, reset_peak
from sanactl.bench.programs import PROMPT, Draw, Parts, ours, random_parts, texts_of, their_name, theirs
from sanactl.errors import InputError
from sanactl.files.progress import SILENT, Progress
from sanactl.records.records import Record
from sanactl.records.scores import new_score

if TYPE_CHECKING:
    from sanactl.checkpoint.open import Checkpoint
    from sanactl.model.sampling_settings import SamplingSettings

__all__ = ["RANDOM", "Measured", "Rounds", "Shape", "measure_speed", "of_checkpoint", "of_random"]

PROTOCOL = "from the text to pixels, one prompt; the median of {} in which the programs take turns"


@dataclass(frozen=True)
class Shape:
    """A shape for random weights.

    Attributes:
        size: its key in `sanactl.bench.random_models.CONFIGS`.
        step: images' sides are multiples of so many pixels.
        defaults: of sampling, where they are not the published ones.
    """

    size: str
    step: int = 32
    defaults: dict[str, Any] = field(default_factory=dict)


# By the names of released checkpoints; `tiny` is for a trial.
RANDOM: Mapping[str, Shape] = {
    "SANA1.5_4.8B": Shape("4.8b"),
    "SANA1.5_1.6B": Shape("1.6b"),
    "SANA_0.6B": Shape("0.6b"),
    "tiny": Shape("tiny", 8, {"height": 64, "width": 64}),
}


@dataclass(frozen=True)
class Measured:
    """What is measured.

    Attributes:
        parts: the modules.
        parameters: of the transformer.
        flops: of one image, with the encoding of its prompt.
        about: fields for the scores: checkpoint, digest, weights.
    """

    parts: Parts
    parameters: int
    flops: float
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Rounds:
    """How it is measured.

    Attributes:
        batch: images of a batch, for the throughput.
        rounds: how often each program draws one image and one batch.
        diffusers: whether diffusers' pipeline is measured, too.
    """

    batch: int = 10
    rounds: int = 3
    diffusers: bool = True


def of_checkpoint(
    checkpoint: Checkpoint, settings: SamplingSettings, device: torch.device, dtype: torch.dtype
) -> Measured:
    """Loads a checkpoint with its components.

    Raises:
        InputError: it cannot be loaded.
    """
    from sanactl.model.conditioning import Sana
    from sanactl.model.flops import ImageCosts

    flops = float(ImageCosts(checkpoint, settings).of(PROMPT).total)
    parts = Parts.of(Sana(checkpoint, settings, device=device, dtype=dtype))
    about = {"checkpoint": str(checkpoint.path), "digest": checkpoint.digest, "weights": "trained"}
    return Measured(parts, checkpoint.num_parameters, flops, about)


def of_random(name: str, settings: SamplingSettings, device: torch.device, dtype: torch.dtype) -> Measured:
    """Makes random weights in a published shape, with Gemma 2 2B and the autoencoder in theirs.

    Args:
        name: of `RANDOM`.

    Raises:
        InputError: they do not fit into the memory that is free.
    """
    from sanactl.bench.random_models import Models, around_of, make_transformer, meta_modules
    from sanactl.files.human import human_bytes

    size = RANDOM[name].size
    shapes = meta_modules(size)
    needed = sum(p.numel() for module in shapes for p in module.parameters()) * dtype.itemsize
    free = free_memory(device)
    if free is not None and free < needed:
        raise InputError(
            f"{name}: its weights take {human_bytes(needed)} in {str(dtype).removeprefix('torch.')}, and"
            f" {human_bytes(free)} are free on {device}",
            hint="--dtype bf16 takes half of fp32; or choose a smaller one",
        )
    around = Models(device, dtype, around=around_of(size))
    parts = random_parts(around, make_transformer(size, device, dtype), settings)
    transformer = shapes[0]
    about = {"checkpoint": name, "weights": "random"}
    return Measured(parts, sum(p.numel() for p in transformer.parameters()), _flops(shapes, parts), about)


def _flops(shapes: tuple[Any, Any, Any], parts: Parts) -> float:
    from sanactl.model.flops import count_flops, sampling_flops

    (transformer, text_encoder, vae), s, texts = shapes, parts.settings, texts_of(parts)
    height, width = s.height // parts.pixels_per_latent, s.width // parts.pixels_per_latent
    sampling = sampling_flops(
        dict(transformer.config),
        height=height,
        width=width,
        text_tokens=texts.text_length(PROMPT),
        steps=s.steps,
        guided=s.guidance_scale > 1,
    )
    with torch.device("meta"):
        tokens = torch.zeros(1, texts.encoder_tokens(PROMPT), dtype=torch.int64)
        text = count_flops(lambda: text_encoder(tokens))
        latent = torch.zeros(1, transformer.config.in_channels, height, width)
        pixels = count_flops(lambda: vae.decode(latent, return_dict=False))
    return float(text + sampling + pixels)


def measure_speed(
    measured: Measured, how: Rounds, *, device: torch.device, progress: Progress = SILENT
) -> Iterator[Record]:
    """Measures throughput, latency and peak memory.

    Yields:
        a `speed` score of sanactl, whose value is images a second in batches, then one of diffusers' pipeline
        (`speed_diffusers`) where it is measured. Each has `latency` (seconds of one image), `latency_range` and
        `value_range` (the slowest and the fastest round), `parameters`, `flops`, `peak_bytes`; sanactl's has `ratio` and
        `latency_ratio`, its throughput over that of diffusers and its latency over theirs.
        Out of memory, a value is None.
    """
    from sanactl.model.hardware import hardware_facts

    parts = measured.parts
    programs: dict[str, Draw] = {"sanactl": ours(parts)}
    if how.diffusers:
        programs[their_name(parts)] = theirs(parts)
    sizes = [1, how.batch] if how.batch > 1 else [1]
    progress.start(len(sizes) * (how.rounds + 1) * len(programs), "drawing")
    try:
        found = {
            images: _take_turns(programs, images, measured, how.rounds, device, progress) for images in sizes
        }
    finally:
        progress.close()
    scores = {name: _fields(found, name, how.batch) for name in programs}
    if how.diffusers:
        scores["sanactl"] |= {
            **_ratio("ratio", found[how.batch][their_name(parts)], found[how.batch]["sanactl"]),
            **_ratio("latency_ratio", found[1]["sanactl"], found[1][their_name(parts)]),
        }
    for name, fields in scores.items():
        value = fields.pop("value")
        yield new_score(
            "speed" if name == "sanactl" else "speed_diffusers",
            value,
            unit="images/s",
            ci=None,
            program=name,
            **fields,
            batch=how.batch,
            parameters=measured.parameters,
            flops=measured.flops,
            height=parts.settings.height,
            width=parts.settings.width,
            steps=parts.settings.steps,
            guidance_scale=parts.settings.guidance_scale,
            protocol=PROTOCOL.format("one round" if how.rounds == 1 else f"{how.rounds} rounds"),
            dtype=str(parts.transformer.dtype).removeprefix("torch."),
            device=str(device),
            **hardware_facts(device),
            **measured.about,
        )


@dataclass(frozen=True)
class _Turns:
    """Seconds of each round, and the most bytes in use; no seconds where the memory did not suffice."""

    seconds: list[float]
    peak: int | None = None


def _take_turns(
    programs: Mapping[str, Draw],
    images: int,
    measured: Measured,
    rounds: int,
    device: torch.device,
    progress: Progress,
) -> dict[str, _Turns]:
    steps = measured.parts.settings.steps
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    peaks: dict[str, int | None] = {}
    for name, draw in programs.items():
        try:
            draw(images, min(steps, 2))
            reset_peak(device)
            draw(images, min(steps, 2))
            peaks[name] = peak_memory(device)
        except torch.OutOfMemoryError:
            gc.collect()
            progress.note(f"{name}: {device} has too little memory for {images} images at once")
        progress.advance(1)
    for _ in range(rounds):
        for name in peaks:
            timer = Timer(device)
            programs[name](images, steps)
            seconds[name].append(timer.stop()[0] / 1000)
            progress.advance(1)
    return {name: _Turns(seconds[name], peaks.get(name)) for name in programs}


def _fields(found: Mapping[int, Mapping[str, _Turns]], name: str, batch: int) -> Record:
    one, many = found[1][name], found[batch][name]
    rates = [batch / seconds for seconds in many.seconds]
    return {
        "value": _brief(statistics.median(rates)) if rates else None,
        "value_range": _range(rates),
        "latency": _brief(statistics.median(one.seconds)) if one.seconds else None,
        "latency_range": _range(one.seconds),
        "peak_bytes": many.peak,
    }


def _ratio(name: str, top: _Turns, bottom: _Turns) -> Record:
    """The ratio of two programs, round by round: its median, and the smallest and the largest."""
    ratios = [a / b for a, b in zip(top.seconds, bottom.seconds, strict=False)]
    return {name: _brief(statistics.median(ratios)), f"{name}_range": _range(ratios)} if ratios else {}


def _range(values: Sequence[float]) -> list[float] | None:
    return [_brief(min(values)), _brief(max(values))] if values else None


def _brief(value: float) -> float:
    return float(f"{value:.5g}")
