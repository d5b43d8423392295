"""The state of one process."""

from __future__ import annotations

import os
from typing import Any

import torch

__all__ = ["AcceleratorState", "PartialState"]


class PartialState:
    """The only process; its device is the one that ACCELERATE_TORCH_DEVICE names, or the first GPU, or the CPU."""

    num_processes = 1
    process_index = 0
    local_process_index = 0
    is_main_process = True
    is_local_main_process = True
    is_last_process = True

    def __init__(self, cpu: bool = False, **options: Any) -> None:
        best = "cuda" if torch.cuda.is_available() and not cpu else "cpu"
        self.device = torch.device(os.environ.get("ACCELERATE_TORCH_DEVICE") or best)

    @staticmethod
    def _reset_state() -> None:
        """There is none to forget."""

    def wait_for_everyone(self) -> None:
        pass


class AcceleratorState(PartialState):
    pass
