"""Capturing an optimizer's step in a CUDA graph, which launches all of its kernels at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sanactl.errors import UsageError

__all__ = ["NEEDS_GPU", "capture"]

NEEDS_GPU = "needs a GPU: CUDA graphs are for NVIDIA's GPUs alone"
# Steps before the capture. They make the state and compile kernels; neither can be done while a graph is captured.
WARM = 2


def capture(step: Callable[[], Any], device: torch.device) -> Callable[[], None]:
    """Take a step twice, then capture it. What is returned takes the step again, by replaying the graph.

    Args:
        step: reads nothing from the device, and finds gradients and parameters at the same places each time.

    Raises:
        UsageError: the device has no CUDA graphs.
    """
    if device.type != "cuda":
        raise UsageError(f"a captured step {NEEDS_GPU}")
    with torch.cuda.device(device):
        # As torch asks for: what comes before a capture is done in a stream beside the ordinary one.
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(WARM):
                step()
        torch.cuda.current_stream(device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
    replay: Callable[[], None] = graph.replay
    return replay
