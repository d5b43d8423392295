"""`finetune`: flow matching on images with captions, restartable to the same weights bit for bit.

Everything random in a step (which examples, noise, noise levels, dropped captions) is a function of (seed, step),
so a run that was stopped and resumed takes the same steps as one that was not, and several processes take the steps
of one. State lies beside the target until the run is done: `.NAME.training/step-00000100/`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import SanactlError, TrainingError, UsageError
from sanactl.io.progress import SILENT, Progress
from sanactl.stages.processes import open_accelerator
from sanactl.stages.training.loop import TrainingLoop
from sanactl.stages.training.stopping import StopRequest

if TYPE_CHECKING:
    import torch

    from sanactl.io.checkpoint import Checkpoint
    from sanactl.stages.data import TrainingData

__all__ = ["FinetuneSettings", "finetune"]


@dataclass(frozen=True)
class FinetuneSettings:
    """How to train. Defaults are the paper's recovery step (section 2.4): the same loss, 100 steps.

    `learning_rate` is taken as given (no scaling by batch size). `clip` bounds the gradient's global norm, 0 leaves it.
    `batch_size` counts over all processes; `micro_batch`, if not 0, is how many of a process's share go through the
    model at once. `ema` 0 keeps no average; otherwise the average is what is written. `cache` examples, if not 0, are
    encoded to latents once before training, which then draws from these alone. `save_every` 0 saves every ten minutes.
    """

    steps: int = 100
    batch_size: int = 16
    micro_batch: int = 0
    learning_rate: float = 2e-5
    optimizer: str = "came8bit"
    schedule: str = "constant"
    warmup: int = 10
    clip: float = 0.1
    weight_decay: float = 0.0
    text_dropout: float = 0.1
    flow_shift: float = 3.0
    ema: float = 0.0
    seed: int = 0
    height: int = 64
    width: int = 64
    max_sequence_length: int = 300
    complex_human_instruction: bool = True
    precision: str = "no"
    gradient_checkpointing: bool = False
    cache: int = 0
    save_every: int = 0


def finetune(
    checkpoint: Checkpoint,
    target: Path,
    settings: FinetuneSettings,
    *,
    data: TrainingData,
    force: bool = False,
    resume: bool = True,
    progress: Progress = SILENT,
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Trains a checkpoint and writes the result.

    Args:
        checkpoint: what to start from; it names its text encoder and autoencoder.
        target: the `.st` file to write.
        data: images with captions.
        resume: continue the state that an interrupted run with the same settings left behind.
        on_step: called for each step, those of an interrupted run included, with {"step", "loss", "lr",
            "grad_norm", "images_per_second"}.

    Returns:
        {"loss": mean of the last tenth of the steps, "steps", "images_per_second", "optimizer_bytes"}.

    Raises:
        TrainingError: the loss or the gradient is not finite; the state before that step has been saved.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, once the step under way is done and the state has been saved.
        OutputExistsError: the target is there and `force` is false.
        UsageError: a batch smaller than the number of processes.
    """
    import torch
    from accelerate.utils import set_seed

    from sanactl.diffusion.cpu import keep_freed_memory
    from sanactl.diffusion.loading import load_transformer
    from sanactl.diffusion.saving import header_of, save_transformer
    from sanactl.io.atomic import check_target
    from sanactl.optim import build_optimizer
    from sanactl.stages.training.conditions import Conditions
    from sanactl.stages.training.state import TrainingState

    accelerator = open_accelerator(settings.precision)
    if settings.batch_size < accelerator.num_processes:
        raise UsageError(
            f"a batch of {settings.batch_size} cannot be shared by {accelerator.num_processes} processes",
            hint="raise --batch-size",
        )
    if accelerator.is_main_process:
        check_target(target, force)
    set_seed(settings.seed)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    model = load_transformer(checkpoint, device=accelerator.device, dtype=torch.float32).train()
    if settings.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    optimizer = build_optimizer(
        settings.optimizer,
        list(model.named_parameters()),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    average = None
    if settings.ema:
        from diffusers.training_utils import EMAModel

        average = EMAModel(model.parameters(), decay=settings.ema, use_ema_warmup=True, power=0.75)
    about: dict[str, Any] = {"command": "finetune", "seed": settings.seed}
    about["arguments"] = asdict(settings) | {"data": data.name}
    state = TrainingState(
        target,
        {**asdict(settings), "checkpoint": checkpoint.digest, "data": data.identity},
        header_of(checkpoint, target.parent, **about),
    )
    first = state.load(model, optimizer, average) if resume else 0
    if first:
        progress.note(f"resuming at step {first} of {settings.steps}")
    # Nobody goes on, and removes or replaces a state, before everybody has read it.
    accelerator.wait_for_everyone()
    if not resume and accelerator.is_main_process:
        state.clear()
    conditions = Conditions(checkpoint, data, settings, accelerator.device)
    if settings.cache and first < settings.steps:
        conditions.fill_cache(progress)
    loop = TrainingLoop(accelerator, model, optimizer, average, conditions, settings, state)
    with StopRequest() as stop:
        try:
            loop.run(first, stop, progress, on_step)
            if accelerator.is_main_process:
                with _averaged(model, average):
                    save_transformer(model, checkpoint, target, force=force, **about)
        except BaseException as error:
            # A second Ctrl-C is not kept waiting, and weights in the middle of an update are no step's.
            if accelerator.is_main_process and loop.done and loop.whole and not stop.insisted:
                _keep(loop, error, progress)
            raise
    if accelerator.is_main_process:
        state.clear()
    accelerator.wait_for_everyone()
    losses = [point["loss"] for point in state.history]
    tail = losses[-max(1, len(losses) // 10) :]
    return {
        "steps": settings.steps,
        "loss": sum(tail) / len(tail) if tail else None,
        "images_per_second": loop.speed,
        "optimizer_bytes": _state_bytes(optimizer),
    }


def _keep(loop: TrainingLoop, error: BaseException, progress: Progress) -> None:
    """Saves the state that an error leaves behind; what is wrong with that is only told, since the error matters more."""
    try:
        loop.save()
    except (OSError, SanactlError) as trouble:
        progress.note(f"the state after step {loop.done} could not be saved: {trouble}")
        return
    if not isinstance(error, TrainingError):
        progress.note(f"the state after step {loop.done} is saved; the same command goes on from there")


@contextlib.contextmanager
def _averaged(model: torch.nn.Module, average: Any) -> Iterator[None]:
    """The model with its averaged weights, if there are any, in place of the last step's."""
    if average is None:
        yield
        return
    average.store(model.parameters())
    average.copy_to(model.parameters())
    try:
        yield
    finally:
        average.restore(model.parameters())


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of optimizer state, all tensors counted."""
    import torch

    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
