"""What sanactl uses of accelerate, for one process and one device.

`recipes/gpu-check.sh` uses this where accelerate is not installed. It is no package of that name to diffusers and
transformers: the version is below every one that they ask for.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from .state import AcceleratorState, PartialState

__all__ = ["Accelerator", "AcceleratorState", "PartialState"]
__version__ = "0.0"


class Accelerator:
    """One process: nothing is averaged, and nobody is waited for."""

    num_processes = 1
    process_index = 0
    is_main_process = True
    is_local_main_process = True

    def __init__(self, mixed_precision: str = "no") -> None:
        self.device = PartialState().device
        self.mixed_precision = mixed_precision

    def autocast(self, handler: Any = None) -> contextlib.AbstractContextManager[Any]:
        if self.mixed_precision == "no":
            return contextlib.nullcontext()
        cached = True if handler is None else handler.cache_enabled
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=cached)

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def no_sync(self, model: Any) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def prepare_model(self, model: Any) -> Any:
        return model.to(self.device)

    def reduce(self, tensor: torch.Tensor, reduction: str = "sum") -> torch.Tensor:
        return tensor

    def wait_for_everyone(self) -> None:
        pass
