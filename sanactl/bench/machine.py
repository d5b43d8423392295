"""Describing and measuring the machine: versions, memory, copy bandwidth, matrix products, cost of a kernel launch."""

from __future__ import annotations

import platform
import statistics
from importlib import metadata
from typing import Any

import torch

from sanactl.bench.optim_cost import Timer, copy_bandwidth, free_memory
from sanactl.bench.rows import Rows

__all__ = ["device_name", "measure_machine", "time_calls"]

_PACKAGES = ("torch", "triton", "transformers", "diffusers", "accelerate", "bitsandbytes", "torchao", "numpy")


def measure_machine(rows: Rows, device: torch.device, *, small: bool = False) -> None:
    """Adds rows to the tables "machine" and "speed of the machine"."""
    for package in ("python", *_PACKAGES):
        rows.add("machine", what=package, value=_version(package))
    rows.add("machine", what="device", value=device_name(device))
    rows.add("machine", what="CUDA", value=torch.version.cuda or "none")
    free = free_memory(device)
    rows.add("machine", what="free memory, GB", value=None if free is None else round(free / 1e9, 1))
    bandwidth = copy_bandwidth(device, 1 << 24 if small else 1 << 31)
    rows.add("speed of the machine", what="copy, GB/s read and written", value=bandwidth / 1e9)
    n = 256 if small else 8192
    for dtype in (torch.bfloat16, torch.float32):
        a, b = torch.randn(2, n, n, device=device).to(dtype)
        ms = time_calls(lambda a=a, b=b: a @ b, device, count=5)
        name = f"{str(dtype).removeprefix('torch.')} product of {n}, TFLOP/s"
        rows.add("speed of the machine", what=name, value=2 * n**3 / ms / 1e9)
    x, count = torch.zeros(16, device=device), 100 if small else 2000

    def launches() -> None:
        for _ in range(count):
            x.add_(1)

    each = time_calls(launches, device, count=3) * 1000 / count
    rows.add("speed of the machine", what="small operation, microseconds", value=each)


def time_calls(call: Any, device: torch.device, *, count: int, warm: int = 1) -> float:
    """Milliseconds of a call: the median of `count` calls, after `warm` calls that are not timed."""
    for _ in range(warm):
        call()
    times = []
    for _ in range(count):
        timer = Timer(device)
        call()
        times.append(timer.stop()[0])
    return statistics.median(times)


def device_name(device: torch.device) -> str:
    """The card's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"


def _version(package: str) -> str:
    if package == "python":
        return platform.python_version()
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
