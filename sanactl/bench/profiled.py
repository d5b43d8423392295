"""Counting what the host launches on a GPU: kernels, copies and fills of memory, and CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["profiled_launches"]

# Of CUDA's runtime and driver, as torch's profiler names them: cudaLaunchKernel, cudaLaunchKernelExC, cuLaunchKernelEx, ...
_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaMemcpyAsync", "cudaMemsetAsync", "cudaGraphLaunch")


def profiled_launches(call: Callable[[], Any], device: torch.device) -> int | None:
    """The launches of one call; None if the device is not a GPU, or the profiler cannot see them."""
    if device.type != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize(device)
    count = sum(event.count for event in profiler.key_averages() if event.key.startswith(_LAUNCHES))
    return count or None
