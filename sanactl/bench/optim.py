"""Comparing optimizers in one run, on parameters with the shapes of SANA's blocks: time, state, peak memory.

In each round, each optimizer in turn makes a new state and takes its steps. So a disturbance of the machine affects all
optimizers, ratios compare measurements close in time, and only one state is in memory.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from sanactl.bench.captured import capture
from sanactl.bench.contenders import BASELINE, CONTENDERS, HUNGRIEST
from sanactl.bench.optim_cost import (
    Timer,
    copy_bandwidth,
    free_memory,
    moved_bytes,
    peak_memory,
    reset_peak,
    state_bytes,
)
from sanactl.bench.profiled import profiled_launches
from sanactl.errors import SanactlError, UsageError

__all__ = ["MODELS", "block_shapes", "fitting_blocks", "run"]

# Width, with or without query-key norms, blocks. The last two are SANA 1.6B and SANA-1.5 4.8B.
MODELS = {
    "tiny": (192, True, 10),
    "0.6b": (1152, False, 28),
    "1.6b": (2240, False, 20),
    "4.8b": (2240, True, 60),
}


@dataclass
class _Found:
    """The results of one optimizer so far: a list of steps for each round."""

    wall: list[list[float]] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)  # of the copy bandwidth, a number a round
    state: int = 0
    moved: int = 0
    peak: int | None = None
    launches: int | None = None
    error: str | None = None


def run(
    model: str = "tiny",
    blocks: int | None = None,
    *,
    rounds: int = 3,
    steps: int | None = None,
    optimizers: list[str] | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Iterator[list[dict[str, Any]]]:
    """Measure optimizers in turn, round by round, on the same parameters and gradients.

    Args:
        model: one of `MODELS`; its blocks give the shapes.
        blocks: number of blocks; by default `fitting_blocks`. Two blocks of SANA 1.6B are 156 million parameters.
        rounds: number of turns of each optimizer.
        steps: timed steps in a turn, after one that makes the state; by default 1 on a CPU and 10 elsewhere.
        optimizers: names from `CONTENDERS`; by default all of them, on a GPU with the captured ones.
        dtype: of parameters and gradients.
        device: of parameters and gradients.

    Yields:
        The whole table after every turn, with a row for each measured optimizer; the last table is the result. Launches are
        counted after all turns, because a profiler makes later launches slower. A row:
        `optimizer`, `model`, `blocks`, `parameters`, `dtype`, `device`, `threads`, `rounds` and

        - `step_ms`, `step_ms_min`: median and minimum of all timed steps;
        - `step_cpu_ms_min`: processor time of all threads, which other work on the machine affects least (CPU only);
        - `ratio`: to `BASELINE`, the median over rounds of the ratio of the two medians of that round;
        - `moved_bytes_per_parameter`: the least number of bytes that a step must move (`optim_cost.moved_bytes`);
        - `copy_share`: these bytes per second, divided by the copy bandwidth measured in the same round;
        - `copy_gb_s`: the copy bandwidth (bytes read and written), best of all rounds;
        - `launches`: kernels, copies and graphs that the host launches in a step (GPUs only);
        - `state_bytes_per_parameter`; `peak_bytes_per_parameter`, the most memory over what parameters and
          gradients take: state and temporaries.

        Unknown values are None. An optimizer that does not run here has an `error` instead of numbers.

    Raises:
        UsageError: the model or an optimizer is unknown; blocks, rounds or steps are below 1; or not one block fits.
    """
    device = torch.device(device)
    names = (
        [name for name, c in CONTENDERS.items() if device.type == "cuda" or not c.captured]
        if optimizers is None
        else list(dict.fromkeys(optimizers))
    )
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        raise UsageError(f"unknown optimizer {unknown[0]!r}", hint=f"use some of {', '.join(CONTENDERS)}")
    shapes = block_shapes(model)
    blocks = fitting_blocks(model, dtype, device) if blocks is None else blocks
    steps = (1 if device.type == "cpu" else 10) if steps is None else steps
    for name, value in (("blocks", blocks), ("rounds", rounds), ("steps", steps)):
        if value < 1:
            raise UsageError(f"{name} is {value}", hint="use 1 or more")

    generator = torch.Generator(device).manual_seed(0)
    params = [nn.Parameter(_random(shape, generator, 0.02, dtype)) for shape in shapes * blocks]
    for p in params:
        p.grad = _random(tuple(p.shape), generator, 1e-3, dtype)
    common: dict[str, Any] = {
        "model": model,
        "blocks": blocks,
        "parameters": sum(p.numel() for p in params),
        "dtype": str(dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
    }
    found = {name: _Found(error=_fault(name, device, dtype)) for name in names}
    bandwidth = 0.0

    def table() -> list[dict[str, Any]]:
        return [_row(n, f, found, common, bandwidth) for n, f in found.items() if f.wall or f.error]

    if table():
        yield table()  # those that do not run here
    copied = min(1 << 28, max(1 << 24, 2 * common["parameters"] * dtype.itemsize))
    if device.type == "cuda":  # a cache of 50 MB would count, and so would a launch
        copied = 1 << 30
    for _ in range(rounds):
        for name in names:
            if found[name].error is None:
                beside = copy_bandwidth(device, copied)
                bandwidth = max(bandwidth, beside)
                _turn(name, found[name], params, steps, device, beside)
                yield table()
    for name in names:
        if device.type == "cuda" and found[name].error is None:
            found[name].launches = _launches(name, params, device)
            yield table()


def block_shapes(model: str) -> list[tuple[int, ...]]:
    """The shapes of one transformer block's parameters, as `SanaTransformer2DModel` has them."""
    if model not in MODELS:
        raise UsageError(f"unknown model {model!r}", hint=f"use one of {', '.join(MODELS)}")
    w, norms, _ = MODELS[model]
    hidden = int(2.5 * w)
    attention: list[tuple[int, ...]] = [(w, w)] * 3 + [(w, w), (w,)]  # q, k, v; output with a bias
    cross: list[tuple[int, ...]] = [(w, w), (w,)] * 4
    feed_forward: list[tuple[int, ...]] = [
        (2 * hidden, w, 1, 1), (2 * hidden,), (2 * hidden, 1, 3, 3), (2 * hidden,), (w, hidden, 1, 1),
    ]  # fmt: skip
    return attention + cross + feed_forward + [(6, w)] + [(w,)] * (4 if norms else 0)


def fitting_blocks(model: str, dtype: torch.dtype, device: torch.device) -> int:
    """The number of the model's blocks that fit into 80 % of the free memory with the optimizer that needs the most.

    Raises:
        UsageError: not one fits.
    """
    shapes, free = block_shapes(model), free_memory(device)
    everything = MODELS[model][2]
    if free is None:
        return 1
    one = sum(math.prod(shape) for shape in shapes) * (2 * dtype.itemsize + HUNGRIEST)
    fit = min(everything, int(0.8 * free // one))
    if fit < 1:
        raise UsageError(
            f"one block of {model} takes {one / 1e9:.1f} GB with its optimizer, and {free / 1e9:.1f} GB are free",
            hint="use a smaller model, such as tiny, or name blocks and optimizers",
        )
    return fit


def _fault(name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why an optimizer does not run here, or None. It takes one step, so that its imports are done."""
    p = nn.Parameter(torch.ones(2, 2, device=device, dtype=dtype))
    p.grad = torch.ones_like(p)
    try:
        _stepper(name, [p], device)[1]()
    except Exception as e:  # any error of another package becomes a row of the table
        return _line(e)
    return None


def _stepper(
    name: str, params: list[nn.Parameter], device: torch.device
) -> tuple[torch.optim.Optimizer, Callable[[], Any]]:
    """A new optimizer, and what takes its step; for a captured one, the state is made and the graph is there."""
    optimizer = CONTENDERS[name].make(params)
    return optimizer, capture(optimizer.step, device) if CONTENDERS[name].captured else optimizer.step


def _launches(name: str, params: list[nn.Parameter], device: torch.device) -> int | None:
    reset_peak(device)  # the memory of the last optimizer
    try:
        _, step = _stepper(name, params, device)
        step()
        return profiled_launches(step, device)
    except RuntimeError:  # no profiler here, or no memory left
        return None


def _turn(
    name: str, found: _Found, params: list[nn.Parameter], steps: int, device: torch.device, bandwidth: float
) -> None:
    """One optimizer's turn: new state, one step to set it up, then the timed ones."""
    wall = []
    try:
        before = reset_peak(device)
        optimizer, step = _stepper(name, params, device)
        step()
        for _ in range(steps):
            timer = Timer(device)
            step()
            ms, cpu_ms = timer.stop()
            wall.append(ms)
            found.cpu += [] if cpu_ms is None else [cpu_ms]
        peak = peak_memory(device)
    except Exception as e:  # out of memory, say
        found.error = _line(e)
        return
    if peak is not None and before is not None:
        found.peak = max(found.peak or 0, peak - before)
    found.state = state_bytes(list(optimizer.state.values()))
    found.moved = moved_bytes(CONTENDERS[name].kind, params, found.state)
    found.wall.append(wall)
    found.shares.append(found.moved / (statistics.median(wall) / 1000) / bandwidth)


def _row(
    name: str, found: _Found, every: dict[str, _Found], common: dict[str, Any], bandwidth: float
) -> dict[str, Any]:
    row = {"optimizer": name, **common}
    if found.error is not None:
        return {**row, "error": found.error}
    size, steps = common["parameters"], [ms for wall in found.wall for ms in wall]
    base = every[BASELINE].wall if BASELINE in every else []
    ratios = [statistics.median(a) / statistics.median(b) for a, b in zip(found.wall, base, strict=False)]
    return {
        **row,
        "rounds": len(found.wall),
        "step_ms": round(statistics.median(steps), 3),
        "step_ms_min": round(min(steps), 3),
        "step_cpu_ms_min": round(min(found.cpu), 3) if found.cpu else None,
        "ratio": round(statistics.median(ratios), 4) if ratios else None,
        "moved_bytes_per_parameter": round(found.moved / size, 3),
        "copy_share": round(statistics.median(found.shares), 4),
        "copy_gb_s": round(bandwidth / 1e9, 2),
        "launches": found.launches,
        "state_bytes_per_parameter": round(found.state / size, 4),
        "peak_bytes_per_parameter": None if found.peak is None else round(found.peak / size, 2),
    }


def _line(error: Exception) -> str:
    if isinstance(error, SanactlError):
        return error.message
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _random(
    shape: tuple[int, ...], generator: torch.Generator, size: float, dtype: torch.dtype
) -> torch.Tensor:
    return (torch.randn(shape, generator=generator, device=generator.device) * size).to(dtype)
