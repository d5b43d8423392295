"""The processes of one run under `torchrun` or `accelerate launch`; one process where there is neither."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from sanactl.errors import SanactlError, TrainingError, UsageError
from sanactl.model.devices import open_device

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState

__all__ = [
    "agree",
    "broadcast",
    "gather",
    "is_one_of_several",
    "launcher_shards",
    "one_falls_all_fall",
    "open_accelerator",
    "open_processes",
]

T = TypeVar("T")

# A process may have to wait for the slowest as long as a night's sampling differs between two machines.
_PATIENCE = timedelta(hours=12)
# In training they wait for each other in every step, and longest while one writes a state.
_TRAINING_PATIENCE = timedelta(minutes=30)
# Set by accelerate's launcher, and where it is kept once a training has taken it over.
_FSDP, _TAKEN = "ACCELERATE_USE_FSDP", "SANACTL_LAUNCHER_SHARDS"
# Texts of error messages about a process that has ended.
_OF_PEERS = ("/gloo/", "NCCL", "Connection closed by peer", "Connection reset by peer", "Socket Timeout")


def open_processes() -> PartialState:
    """Join the processes of this run; returns their state (`process_index`, `num_processes`, `device`)."""
    import torch
    from accelerate import PartialState

    atexit.register(_leave)
    # Without a GPU, accelerate joins processes (by gloo) only if the CPU is asked for explicitly.
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=_PATIENCE)


def _leave() -> None:
    """End gloo's threads before the interpreter ends; otherwise they sometimes abort the process (exit code -6)."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized() and dist.get_backend() == "gloo":
        dist.destroy_process_group()


def open_accelerator(precision: str, device: str | None = None, *, shards: bool = False) -> Accelerator:
    """Join the processes of a training run; gradients are averaged over them.

    Args:
        precision: "no" (fp32) or "bf16" (autocast; weights and optimizer stay fp32).
        device: "cpu", "cuda:1" or similar; by default the best device, one for each process.
        shards: the caller can divide the model among the processes itself, as the launcher asks (`launcher_shards`).

    Raises:
        UsageError: the device does not exist, a device is given with several processes, or the launcher divides the model
            in a way that the caller cannot.
    """
    import warnings

    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    if shards and _is_set(_FSDP):
        _check_fsdp()
        # accelerate would divide the model a second time, and transformers leave encoders empty on all processes but one.
        os.environ[_TAKEN] = os.environ.pop(_FSDP)
    _refuse_sharding()
    # DDP's warning about gradients of depth-wise convolutions; it costs only a copy of 9 values a channel.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    AcceleratorState._reset_state()  # an earlier run in the same process may have had another precision
    if device is not None:
        _choose_device(device)
    open_processes()
    _wait_no_longer_than(_TRAINING_PATIENCE)
    accelerator = Accelerator(mixed_precision=precision)
    if device is None:
        return accelerator
    PartialState._reset_state()  # the choice is this run's alone
    os.environ.pop("ACCELERATE_TORCH_DEVICE", None)
    return accelerator


def _wait_no_longer_than(patience: timedelta) -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.distributed_c10d._set_pg_timeout(patience, dist.group.WORLD)  # type: ignore[attr-defined, unused-ignore]


def _choose_device(device: str) -> None:
    """Set accelerate's device by environment variables."""
    from accelerate.state import PartialState

    open_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--device is for one process; a launcher gives each of several its own")
    PartialState._reset_state()
    os.environ["ACCELERATE_TORCH_DEVICE"] = device


def launcher_shards() -> bool:
    """Whether `accelerate launch` asks for a model that is divided among the processes (FSDP)."""
    return _is_set(_FSDP) or _is_set(_TAKEN)


def _check_fsdp() -> None:
    """Raises UsageError for settings of accelerate's FSDP that `finetune --fsdp` does not have."""
    for variable, refused, what, hint in (
        ("FSDP_VERSION", ("1",), "version 1", "set fsdp_version: 2"),
        ("FSDP_OFFLOAD_PARAMS", ("1", "true"), "offload to the CPU", "set fsdp_offload_params: false"),
        (
            "FSDP_ACTIVATION_CHECKPOINTING",
            ("1", "true"),
            "activation checkpointing",
            "use --gradient-checkpointing",
        ),
    ):
        if os.environ.get(variable, "").lower() in refused:
            raise UsageError(
                f"finetune has no FSDP with {what}, as accelerate's configuration asks for", hint=hint
            )


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("1", "true")


def _refuse_sharding() -> None:
    for variable, name in (
        (_FSDP, "FSDP"),
        ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"),
        ("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM"),
    ):
        if _is_set(variable):
            raise UsageError(
                f"this training does not run under {name}",
                hint="launch with --multi_gpu (DDP); finetune --fsdp divides the model among the processes",
            )


def broadcast(thing: T) -> T:
    """The first process's `thing`, on every process."""
    from accelerate.utils import broadcast_object_list

    open_processes()
    shared: list[T] = broadcast_object_list([thing])
    return shared[0]


def gather(thing: T) -> list[T]:
    """Each process's `thing`, in the order of the processes, on every process."""
    from accelerate.utils import gather_object

    open_processes()
    things: list[T] = gather_object([thing])
    return things


def is_one_of_several() -> bool:
    """Whether a launcher has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def agree(decide: Callable[[], T]) -> T:
    """The first process's decision, on every process.

    If it raises a `SanactlError`, all processes end with its exit code, and only the first prints the error.
    """
    if not is_one_of_several():
        return decide()
    found: tuple[T | None, SanactlError | None] = (None, None)
    first = open_processes().is_main_process
    if first:
        try:
            found = (decide(), None)
        except SanactlError as error:
            found = (None, error)
    decided, fault = broadcast(found)
    if fault is not None:
        raise found[1] if first and found[1] is not None else SystemExit(fault.exit_code)
    return decided  # type: ignore[return-value]


@contextlib.contextmanager
def one_falls_all_fall() -> Iterator[None]:
    """Turn the errors of a process whose partner has ended into one line.

    Raises:
        TrainingError: another process ended or no longer answers.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_one_of_several() or not _is_of_a_peer(error):
            raise
        raise TrainingError(
            "another process of this run ended, and this one cannot go on without it",
            hint="that process says why; the same command goes on from what is saved",
        ) from error


def _is_of_a_peer(error: RuntimeError) -> bool:
    import torch.distributed as dist

    known = getattr(dist, "DistError", ())
    return isinstance(error, known) or any(sign in str(error) for sign in _OF_PEERS)
