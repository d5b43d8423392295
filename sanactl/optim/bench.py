"""Optimizers side by side, in one run, on parameters shaped like SANA's blocks: time, state, peak memory."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sanactl.errors import UsageError
from sanactl.optim.came import CAME, CAME8bit
from sanactl.optim.listwise import ListwiseCAME8bit

__all__ = ["CONTENDERS", "MODELS", "block_shapes", "run"]

# Width, with or without query-key norms. SANA 1.6B has 20 blocks of this size, SANA-1.5 4.8B has 60.
MODELS = {"tiny": (192, True), "0.6b": (1152, False), "1.6b": (2240, False), "4.8b": (2240, True)}

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def _imported(module: str, name: str, **options: Any) -> Make:
    """An optimizer of another package; ImportError when it is made."""

    def make(params: list[nn.Parameter]) -> torch.optim.Optimizer:
        built: torch.optim.Optimizer = getattr(import_module(module), name)(params, **options)
        return built

    return make


LR = 1e-5
CONTENDERS: dict[str, Make] = {
    "adamw": partial(torch.optim.AdamW, lr=LR, fused=False),
    "adamw-fused": partial(torch.optim.AdamW, lr=LR, fused=True),
    "adamw8bit-bitsandbytes": _imported("bitsandbytes.optim", "AdamW8bit", lr=LR),
    "adamw8bit-torchao": _imported("torchao.optim", "AdamW8bit", lr=LR),
    "came-pytorch": _imported("came_pytorch", "CAME", lr=LR),
    "came": partial(CAME, lr=LR),
    "came8bit-public": partial(ListwiseCAME8bit, lr=LR),
    "came8bit-linear": partial(CAME8bit, lr=LR, code="linear"),
    "came8bit-dynamic": partial(CAME8bit, lr=LR, code="dynamic"),
    "came8bit": partial(CAME8bit, lr=LR),
}


def run(
    model: str = "tiny",
    blocks: int = 1,
    *,
    steps: int = 3,
    optimizers: list[str] | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Iterator[dict[str, Any]]:
    """Measure one optimizer after the other on the same parameters and gradients.

    Args:
        model: one of `MODELS`; which blocks to take the shapes from.
        blocks: how many blocks; two of SANA 1.6B are 156 million parameters.
        steps: timed steps, after one that sets up the state.
        optimizers: names from `CONTENDERS`; all of them by default.
        dtype: of parameters and gradients.
        device: where they are.

    Yields:
        A row an optimizer: `optimizer`, `model`, `blocks`, `parameters`, `dtype`, `device`, `threads`, and
        `step_ms` (the median), `step_ms_min`, `step_cpu_ms_min` (processor time over all threads: what other work on
        the machine disturbs least), `state_bytes_per_parameter`, `peak_bytes_per_parameter` (the most
        memory over what parameters and gradients take: state and temporaries; None where the system does not tell).
        One that does not run here has an `error` in place of the numbers.

    Raises:
        UsageError: no such model, optimizer or number of blocks.
    """
    names = list(CONTENDERS) if optimizers is None else optimizers
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        raise UsageError(f"unknown optimizer {unknown[0]!r}", hint=f"use some of {', '.join(CONTENDERS)}")
    if blocks < 1 or steps < 1:
        raise UsageError(f"blocks is {blocks} and steps is {steps}", hint="use 1 or more of each")
    device = torch.device(device)
    shapes = block_shapes(model) * blocks
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(_random(shape, generator, 0.02).to(device, dtype)) for shape in shapes]
    for p in params:
        p.grad = _random(tuple(p.shape), generator, 1e-3).to(device, dtype)
    size = sum(p.numel() for p in params)
    for name in names:
        row = {
            "optimizer": name,
            "model": model,
            "blocks": blocks,
            "parameters": size,
            "dtype": str(dtype).removeprefix("torch."),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            "threads": torch.get_num_threads(),
        }
        try:
            row.update(_measure(CONTENDERS[name], params, steps, device))
        except (ImportError, RuntimeError, NotImplementedError) as e:
            row["error"] = f"{type(e).__name__}: {e}".splitlines()[0]
        yield row


def block_shapes(model: str) -> list[tuple[int, ...]]:
    """The shapes of one transformer block's parameters, as `SanaTransformer2DModel` has them."""
    if model not in MODELS:
        raise UsageError(f"unknown model {model!r}", hint=f"use one of {', '.join(MODELS)}")
    w, norms = MODELS[model]
    hidden = int(2.5 * w)
    attention: list[tuple[int, ...]] = [(w, w)] * 3 + [(w, w), (w,)]  # q, k, v; output with a bias
    cross: list[tuple[int, ...]] = [(w, w), (w,)] * 4
    feed_forward: list[tuple[int, ...]] = [
        (2 * hidden, w, 1, 1), (2 * hidden,), (2 * hidden, 1, 3, 3), (2 * hidden,), (w, hidden, 1, 1),
    ]  # fmt: skip
    return attention + cross + feed_forward + [(6, w)] + [(w,)] * (4 if norms else 0)


def _measure(make: Make, params: list[nn.Parameter], steps: int, device: torch.device) -> dict[str, Any]:
    gc.collect()
    before = _reset_peak(device)
    optimizer = make(params)
    times, cpu_times = [], []
    for _ in range(steps + 1):
        start, cpu_start = _now(device), time.process_time()
        optimizer.step()
        times.append((_now(device) - start) * 1000)
        cpu_times.append((time.process_time() - cpu_start) * 1000)
    peak = _peak(device)
    size = sum(p.numel() for p in params)
    return {
        "step_ms": round(statistics.median(times[1:]), 2),
        "step_ms_min": round(min(times[1:]), 2),
        "step_cpu_ms_min": round(min(cpu_times[1:]), 2),
        "state_bytes_per_parameter": round(_bytes(list(optimizer.state.values())) / size, 4),
        "peak_bytes_per_parameter": None
        if peak is None or before is None
        else round((peak - before) / size, 2),
    }


def _bytes(value: Any) -> int:
    """Bytes of all tensors in nested lists, tuples and dictionaries; quantised subclasses count what is in them."""
    if isinstance(value, torch.Tensor):
        if hasattr(value, "__tensor_flatten__"):
            return sum(_bytes(getattr(value, name)) for name in value.__tensor_flatten__()[0])
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        value = list(value.values())
    return sum(_bytes(v) for v in value) if isinstance(value, (list, tuple)) else 0


def _random(shape: tuple[int, ...], generator: torch.Generator, size: float) -> torch.Tensor:
    return torch.randn(shape, generator=generator) * size


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _reset_peak(device: torch.device) -> int | None:
    """Forget the peak; the bytes that are in use now."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _proc_status("VmRSS")


def _peak(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _proc_status("VmHWM")


def _proc_status(key: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)
