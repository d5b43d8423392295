"""The processes of one run under `torchrun` or `accelerate launch`; one process where there is neither."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState

__all__ = ["broadcast", "open_accelerator", "open_processes"]

T = TypeVar("T")

# A process may have to wait for the slowest as long as a night's sampling differs between two machines.
_PATIENCE = timedelta(hours=12)


def open_processes() -> PartialState:
    """Joins this run's processes: who they are (`process_index`, `num_processes`, `device`) and how they wait."""
    import torch
    from accelerate import PartialState

    # Without an accelerator accelerate joins processes (by gloo) only where it is told that the CPU is meant.
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=_PATIENCE)


def open_accelerator(precision: str) -> Accelerator:
    """The same for training: gradients are averaged over the processes.

    Args:
        precision: "no" (fp32) or "bf16" (autocast; weights and optimizer stay fp32).
    """
    import warnings

    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # DDP says so of depth-wise convolutions' gradients, once a process; it costs a copy of 9 values a channel.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    open_processes()
    AcceleratorState._reset_state()  # a run before this one, in the same process, may have had another precision
    return Accelerator(mixed_precision=precision)


def broadcast(thing: T) -> T:
    """The first process's `thing`, on every process."""
    from accelerate.utils import broadcast_object_list

    open_processes()
    shared: list[T] = broadcast_object_list([thing])
    return shared[0]
