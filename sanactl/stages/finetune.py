"""`finetune`: flow matching on images with captions, restartable to the same weights bit for bit.

Everything random in a step (which examples, noise, noise levels, dropped captions) is a function of (seed, step),
so a run that was stopped and resumed takes the same steps as one that was not, and several processes take the steps
of one. State lies beside the target until the run is done: `.NAME.training/step-00000100/`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import SanactlError, TrainingError, UsageError
from sanactl.io.progress import SILENT, Progress
from sanactl.stages.processes import broadcast, open_accelerator
from sanactl.stages.training.loop import TrainingLoop
from sanactl.stages.training.settings import FinetuneSettings, average_decay
from sanactl.stages.training.state import identity_key
from sanactl.stages.training.stopping import StopRequest

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from sanactl.io.checkpoint import Checkpoint
    from sanactl.stages.data import TrainingData
    from sanactl.stages.training.state import TrainingState
    from sanactl.stages.training.teacher import Teacher
    from sanactl.stages.training.trainable import Trainable

__all__ = ["FinetuneSettings", "finetune", "is_result", "run_key"]

_RUN = 16  # digits of a run's key in its result's lineage


def finetune(
    checkpoint: Checkpoint,
    target: Path,
    settings: FinetuneSettings,
    *,
    data: TrainingData,
    teacher: Checkpoint | None = None,
    device: str | None = None,
    tracker: str | None = None,
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
        teacher: the checkpoint that was pruned, to learn from as well (`Teacher`).
        device: where to train; by default the best there is.
        tracker: where each step's figures go besides (`open_tracker`).
        resume: continue the state that an interrupted run with the same settings left behind.
        on_step: called for each step, those of an interrupted run included, with {"step", "loss", "lr",
            "grad_norm", "images_per_second"}, and {"teacher_loss", "feature_loss"} with a teacher.

    Returns:
        {"finished": True, "steps" alone where the target is there already as the result of this very run}; else
        {"finished": True, "steps", "loss": mean of the last tenth of the steps, "images_per_second",
        "optimizer_bytes", and "skipped" damaged images, if any}; after a SIGTERM, with nothing written but the state, {"finished": False, "step", "of",
        "state": its folder}.

    Raises:
        TrainingError: the loss or the gradient is not finite, and the state before that step has been saved; or the
            loss diverged.
        KeyboardInterrupt: on Ctrl-C, once the step under way is done and the state has been saved.
        OutputExistsError: the target is there and `force` is false.
        UsageError: a batch smaller than the number of processes; settings that do not go together.
    """
    import torch
    from accelerate.utils import gather_object, set_seed

    from sanactl.diffusion.cpu import keep_freed_memory
    from sanactl.diffusion.loading import load_transformer
    from sanactl.diffusion.saving import header_of, save_transformer
    from sanactl.io.atomic import check_target
    from sanactl.optim import build_optimizer
    from sanactl.stages.data import EncodedData
    from sanactl.stages.training.ancestry import new_blocks
    from sanactl.stages.training.conditions import Conditions
    from sanactl.stages.training.memory_plan import plan_memory
    from sanactl.stages.training.precision import keep_attention_fp32
    from sanactl.stages.training.state import TrainingState
    from sanactl.stages.training.teacher import check_teacher
    from sanactl.stages.training.tracking import check_tracker
    from sanactl.stages.training.trainable import Trainable

    accelerator = open_accelerator(settings.precision, device)
    if settings.batch_size < accelerator.num_processes:
        raise UsageError(
            f"a batch of {settings.batch_size} cannot be shared by {accelerator.num_processes} processes",
            hint="raise --batch-size",
        )
    key = run_key(checkpoint, settings, data, teacher)
    if broadcast(not force and is_result(target, key)):
        # It was stopped between its last write and the caller's books.
        return {"finished": True, "steps": settings.steps}
    if accelerator.is_main_process:
        check_target(target, force)
    if tracker is not None:
        check_tracker(tracker)
    if teacher is not None:
        check_teacher(checkpoint, teacher)
    if settings.lora and settings.new_blocks_only:
        raise UsageError("--lora and --train-new-blocks-only exclude each other")
    blocks = new_blocks(checkpoint) if settings.new_blocks_only else None
    plan = plan_memory(
        checkpoint,
        settings,
        device=accelerator.device,
        processes=accelerator.num_processes,
        teacher=teacher,
        encoded=isinstance(data, EncodedData),
        blocks=blocks,
    )
    plan.check()
    progress.note(plan.summary)
    if plan.advice:
        progress.note(plan.advice)
    set_seed(settings.seed)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    model = load_transformer(checkpoint, device=accelerator.device, dtype=torch.float32).train()
    keep_attention_fp32(model)
    if settings.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    trained = Trainable(model, settings, blocks)
    optimizer = build_optimizer(
        settings.optimizer,
        trained.named,
        lr=settings.effective_learning_rate,
        weight_decay=settings.weight_decay,
        **({"code": settings.code} if settings.code else {}),
    )
    average = None
    if settings.ema:
        from diffusers.training_utils import EMAModel

        average = EMAModel(trained.parameters(), decay=settings.ema)
        progress.note(
            f"--ema {settings.ema:g}: the average's decay rises with the steps, to {average_decay(settings):.4g} at the last"
        )
    about: dict[str, Any] = {"command": "finetune", "seed": settings.seed}
    about["arguments"] = asdict(settings) | {"data": data.name, "run": key[:_RUN]}
    if teacher is not None:
        about["arguments"]["teacher"] = {"name": teacher.path.name, "digest": teacher.digest}
    state = TrainingState(
        target, key, header_of(checkpoint, target.parent, **about), keep_last=settings.keep_last
    )
    first = state.load(trained, optimizer, average) if resume else 0
    for line in state.damaged:
        progress.note(f"{line}; an older one is used")
    if first:
        progress.note(f"resuming at step {first} of {settings.steps}")
    # Nobody goes on, and removes or replaces a state, before everybody has read it.
    accelerator.wait_for_everyone()
    if not resume and accelerator.is_main_process:
        state.clear()
    conditions = Conditions(checkpoint, data, settings, accelerator.device)
    data.announce(progress.note)
    if settings.cache and first < settings.steps:
        conditions.fill_cache(progress)
    taught = None if teacher is None else _open_teacher(teacher, checkpoint, trained, settings, progress)
    loop = TrainingLoop(accelerator, trained, optimizer, average, conditions, settings, state, taught)
    finished = True
    with StopRequest() as stop, _watching(tracker, on_step, state, target, first, accelerator) as watched:
        try:
            finished = loop.run(first, stop, progress, watched)
            if accelerator.is_main_process and finished:
                with _averaged(trained, average):
                    save_transformer(trained, checkpoint, target, force=force, **about)
        except BaseException as error:
            # A second Ctrl-C is not kept waiting, and weights in the middle of an update are no step's.
            if accelerator.is_main_process and loop.done and loop.whole and loop.sound and not stop.insisted:
                _keep(loop, error, progress)
            raise
    if not finished:
        if accelerator.is_main_process:
            loop.save()
            progress.note(
                f"terminated; the state after step {loop.done} is saved, and the same command goes on from there"
            )
        accelerator.wait_for_everyone()
        return {"finished": False, "step": loop.done, "of": settings.steps, "state": str(state.folder)}
    if accelerator.is_main_process:
        state.clear()
    accelerator.wait_for_everyone()
    skipped = len(set(gather_object(list(data.skipped))))
    losses = [point["loss"] for point in state.history]
    tail = losses[-max(1, len(losses) // 10) :]
    return {
        "finished": True,
        "steps": settings.steps,
        "loss": sum(tail) / len(tail) if tail else None,
        "images_per_second": loop.speed,
        "optimizer_bytes": _state_bytes(optimizer),
        **({"skipped": skipped} if skipped else {}),
    }


def run_key(
    checkpoint: Checkpoint, settings: FinetuneSettings, data: TrainingData, teacher: Checkpoint | None = None
) -> str:
    """A digest of everything that the steps of a run depend on."""
    deciding = {**settings.deciding(), "checkpoint": checkpoint.digest, "data": data.identity}
    return identity_key({**deciding, "teacher": teacher and teacher.digest})


def is_result(target: Path, key: str) -> bool:
    """Whether the target is there and is what the run of this key makes, as its own lineage tells."""
    from sanactl.io.checkpoint import open_checkpoint

    with contextlib.suppress(SanactlError, OSError):
        lineage = open_checkpoint(target).lineage
        return bool(lineage) and (lineage[-1].get("arguments") or {}).get("run") == key[:_RUN]
    return False


@contextlib.contextmanager
def _watching(
    tracker: str | None,
    on_step: Callable[[dict[str, Any]], None] | None,
    state: TrainingState,
    target: Path,
    first: int,
    accelerator: Accelerator,
) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """`on_step`, with the steps after `first` going to the tracker, too."""
    if tracker is None or not accelerator.is_main_process:
        yield on_step
        return
    from sanactl.stages.training.tracking import open_tracker

    opened = open_tracker(tracker, target, {"first_step": first}, key=state.key, first=first)

    def log(point: dict[str, Any]) -> None:
        if point["step"] > first:
            opened.log({name: value for name, value in point.items() if name != "step"}, step=point["step"])
        if on_step is not None:
            on_step(point)

    try:
        yield log
    finally:
        opened.finish()


def _open_teacher(
    teacher: Checkpoint,
    student: Checkpoint,
    trained: Trainable,
    settings: FinetuneSettings,
    progress: Progress,
) -> Teacher:
    """The teacher on the student's device, in bf16 where the student computes in it."""
    import torch

    from sanactl.diffusion.loading import load_transformer
    from sanactl.stages.training.ancestry import Unknown, trace_blocks
    from sanactl.stages.training.precision import keep_attention_fp32
    from sanactl.stages.training.teacher import Teacher

    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    model = load_transformer(teacher, device=next(trained.parameters()).device, dtype=dtype)
    keep_attention_fp32(model)
    try:
        kept: list[int] | None = trace_blocks(student, teacher)
    except Unknown as why:
        kept = None
        progress.note(f"{why}: velocities alone are compared")
    return Teacher(model, trained.model, kept)


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
def _averaged(model: Trainable, average: Any) -> Iterator[None]:
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
