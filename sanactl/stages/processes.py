"""The processes of one run under `torchrun` or `accelerate launch`; one process where there is neither."""

from __future__ import annotations

import atexit
import os
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from sanactl.errors import UsageError

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

    atexit.register(_leave)
    # Without an accelerator accelerate joins processes (by gloo) only where it is told that the CPU is meant.
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=_PATIENCE)


def _leave() -> None:
    """Ends gloo's threads before the interpreter ends: now and then they would abort the process (exit code -6)."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized() and dist.get_backend() == "gloo":
        dist.destroy_process_group()


def open_accelerator(precision: str, device: str | None = None) -> Accelerator:
    """The same for training: gradients are averaged over the processes.

    Args:
        precision: "no" (fp32) or "bf16" (autocast; weights and optimizer stay fp32).
        device: "cpu", "cuda:1" and the like; by default the best there is, a process.

    Raises:
        UsageError: a device that is not there, one of several for several processes, or a launcher that was told to
            shard the model.
    """
    import warnings

    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    _refuse_sharding()
    # DDP says so of depth-wise convolutions' gradients, once a process; it costs a copy of 9 values a channel.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    AcceleratorState._reset_state()  # a run before this one, in the same process, may have had another precision
    if device is not None:
        _choose_device(device)
    open_processes()
    accelerator = Accelerator(mixed_precision=precision)
    if device is None:
        return accelerator
    PartialState._reset_state()  # the choice is this run's alone
    os.environ.pop("ACCELERATE_TORCH_DEVICE", None)
    return accelerator


def _choose_device(device: str) -> None:
    """Tells accelerate, by the environment, which device to take."""
    import torch
    from accelerate.state import PartialState

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise UsageError(f"--device {device}: {first}") from error
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--device is for one process; a launcher gives each of several its own")
    PartialState._reset_state()
    os.environ["ACCELERATE_TORCH_DEVICE"] = device


def _refuse_sharding() -> None:
    for variable, name in (
        ("ACCELERATE_USE_FSDP", "FSDP"),
        ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"),
        ("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM"),
    ):
        if os.environ.get(variable, "false").lower() in ("1", "true"):
            raise UsageError(
                f"finetune does not train under {name}: it saves, restores and averages whole tensors, and sharded ones have"
                " not been tried",
                hint="launch with --multi_gpu (DDP); CAME-8bit, --gradient-checkpointing and --accumulate save memory",
            )


def broadcast(thing: T) -> T:
    """The first process's `thing`, on every process."""
    from accelerate.utils import broadcast_object_list

    open_processes()
    shared: list[T] = broadcast_object_list([thing])
    return shared[0]
