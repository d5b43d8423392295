"""Measuring the cost of an optimizer's step: time, memory, and the least number of bytes that it must move."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sanactl.optim.state import is_matrix

__all__ = [
    "Timer",
    "copy_bandwidth",
    "free_memory",
    "moved_bytes",
    "peak_memory",
    "reset_peak",
    "state_bytes",
]


def moved_bytes(kind: str, params: Iterable[Tensor], state: int, min_8bit_size: int = 16384) -> int:
    """The least number of bytes that a step must read and write in memory, if nothing stays in a cache.

    - `adam`: the gradient once; the parameter and all state, once each way.
    - `came`, `came8bit`: of a matrix the gradient 3 times (its row and column sums come first; with them the clipped
      update and the sums of the instability; with those the step), the moment read twice and written once, the
      parameter once each way. Of other tensors the gradient 3 times (check, clip, step), the second moment read
      twice and written once, moment and parameter once each way. Row and column factors are left out.

    Args:
        kind: the algorithm: `adam`, `came` or `came8bit`.
        params: the parameters; gradients have the same dtype.
        state: total bytes of the state; used for `adam` only.
        min_8bit_size: as in `CAME8bit`.
    """
    total = 2 * state if kind == "adam" else 0
    for p in params:
        n, width = p.numel(), p.element_size()
        if kind == "adam":
            total += 3 * n * width
        elif is_matrix(p):
            moment = 1 if kind == "came8bit" and n > min_8bit_size else 4
            total += n * (5 * width + 3 * moment)
        else:
            total += n * (5 * width + (3 + 2) * 4)
    return total


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes read and written per second by a copy of `size` bytes on this device, the best of three."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    best = float("inf")
    for _ in range(3):
        timer = Timer(device)
        target.copy_(source)
        best = min(best, timer.stop()[0])
    return 2 * size / (best / 1000)


class Timer:
    """Measures wall time (on CUDA by events) and processor time (all threads), from its creation."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            # torch makes an event when it is first recorded, which must not count.
            self._events[1].record(torch.cuda.current_stream(device))
            torch.cuda.synchronize(device)
            self._events[0].record(torch.cuda.current_stream(device))
        self._start, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> tuple[float, float | None]:
        """Wall time and processor time in ms; the latter is None if the device is not the CPU."""
        if self._device.type == "cuda":
            self._events[1].record(torch.cuda.current_stream(self._device))
            torch.cuda.synchronize(self._device)
            return float(self._events[0].elapsed_time(self._events[1])), None
        if self._device.type == "mps":
            torch.mps.synchronize()
            return (time.perf_counter() - self._start) * 1000, None
        return (time.perf_counter() - self._start) * 1000, (time.process_time() - self._cpu) * 1000


def state_bytes(value: Any) -> int:
    """Bytes of all tensors in nested lists, tuples and dictionaries; for quantised subclasses, of their inner tensors."""
    if isinstance(value, Tensor):
        if hasattr(value, "__tensor_flatten__"):
            return sum(state_bytes(getattr(value, name)) for name in value.__tensor_flatten__()[0])
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        value = list(value.values())
    return sum(state_bytes(v) for v in value) if isinstance(value, (list, tuple)) else 0


def reset_peak(device: torch.device) -> int | None:
    """Reset the peak of memory use; returns the bytes in use now, or None if unknown."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that glibc keeps would count as in use
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _proc_bytes("/proc/self/status", "VmRSS")


def peak_memory(device: torch.device) -> int | None:
    """The most bytes in use since `reset_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _proc_bytes("/proc/self/status", "VmHWM")


def free_memory(device: torch.device) -> int | None:
    """Free memory of a device in bytes, or None if unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = _proc_bytes("/proc/meminfo", "MemAvailable")
    try:  # a container may have less memory than the machine
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text() for name in ("max", "current"))
        left = int(limit) - int(used)
    except (OSError, ValueError):
        return free
    return left if free is None else min(free, left)


def _proc_bytes(file: str, key: str) -> int | None:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)
