"""Checking a run's settings before anything is loaded: what cannot be trained, and options that exclude each other."""

from __future__ import annotations

import math
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING

from sanactl.errors import UsageError
from sanactl.model.sampling_settings import is_sprint
from sanactl.optim.table import OPTIMIZERS, find_optimizer, optimizers_with
from sanactl.training.ancestry import new_blocks

if TYPE_CHECKING:
    from sanactl.checkpoint.open import Checkpoint
    from sanactl.training.settings import FinetuneSettings

__all__ = ["check_run", "check_teacher", "check_trainable"]


def check_run(
    checkpoint: Checkpoint, settings: FinetuneSettings, teacher: Checkpoint | None = None, processes: int = 1
) -> None:
    """Refuses a run that cannot be made as it is asked for.

    Raises:
        UsageError: names the option, or the checkpoint.
    """
    check_trainable(checkpoint)
    for name, value in asdict(settings).items():
        if isinstance(value, float) and not math.isfinite(value):
            option = "lr" if name == "learning_rate" else name.replace("_", "-")
            raise UsageError(f"--{option} {value} is no number to train with")
    if settings.steps < 1 or settings.batch_size < 1:
        what = "steps" if settings.steps < 1 else "batch-size"
        raise UsageError(f"--{what} has to be at least 1")
    if settings.flow_shift <= 0:
        raise UsageError(
            f"--flow-shift {settings.flow_shift:g} leaves no noise to learn from",
            hint="use 1 or more; SANA has 3",
        )
    if settings.batch_size < processes:
        raise UsageError(
            f"a batch of {settings.batch_size} cannot be shared by {processes} processes",
            hint="raise --batch-size",
        )
    if settings.lora and settings.new_blocks_only:
        raise UsageError("--lora and --train-new-blocks-only exclude each other")
    if settings.new_blocks_only:
        new_blocks(checkpoint)
    if settings.lora and find_spec("peft") is None:
        raise UsageError("--lora needs the package peft", hint="pip install 'sanactl[lora]'")
    optimizer = find_optimizer(settings.optimizer)
    optimizer.check_installed("--optimizer")
    if settings.offload_optimizer and not optimizer.offloads:
        raise UsageError(
            f"--offload-optimizer does not work with --optimizer {settings.optimizer}",
            hint="use came8bit, came or adamw",
        )
    if settings.scheme and "scheme" not in optimizer.options:
        takers = " or ".join(optimizers_with("scheme"))
        raise UsageError(f"--scheme is for --optimizer {takers}, and this is {settings.optimizer}")
    if settings.offload_optimizer and settings.fsdp:
        raise UsageError(
            "--offload-optimizer and --fsdp exclude each other",
            hint="--fsdp divides the optimizer's state, too",
        )
    if settings.fsdp and not optimizer.shards:
        takers = " or ".join(entry.name for entry in OPTIMIZERS.values() if entry.shards)
        raise UsageError(f"--fsdp is for --optimizer {takers}, and this is {settings.optimizer}")
    if teacher is not None:
        check_teacher(checkpoint, teacher)


def check_trainable(checkpoint: Checkpoint) -> None:
    """Raises UsageError for a model that flow matching would spoil."""
    if is_sprint(checkpoint):
        raise UsageError(
            f"{checkpoint.path} is a SANA-Sprint checkpoint, and finetune trains by flow matching, which would undo its"
            " distillation (continuous-time consistency)",
            hint="fine-tune the SANA-1.5 checkpoint of its size",
        )


def check_teacher(student: Checkpoint, teacher: Checkpoint) -> None:
    """Raises UsageError where the teacher reads or writes something else than the student."""
    if is_sprint(teacher):
        raise UsageError(
            f"{teacher.path} cannot teach {student.path}: it is a SANA-Sprint checkpoint, which predicts no flow",
            hint="the teacher is the checkpoint that was pruned",
        )
    for key in ("in_channels", "out_channels", "caption_channels", "patch_size", "timestep_scale"):
        ours, theirs = student.config.get(key), teacher.config.get(key)
        if ours != theirs:
            raise UsageError(
                f"{teacher.path} cannot teach {student.path}: its {key} is {theirs}, not {ours}",
                hint="the teacher is the checkpoint that was pruned",
            )
