"""`finetune`: flow matching on images with captions, restartable to the same weights bit for bit.

Everything random in a step (which examples, noise, noise levels, dropped captions) is a function of (seed, step),
so a run that was stopped and resumed takes the same steps as one that was not, and several processes take the steps
of one. State lies beside the target until the run is done: `.NAME.training/step-00000100/`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import SanactlError
from sanactl.files.progress import SILENT, Progress
from sanactl.model.processes import launcher_shards, one_falls_all_fall, open_accelerator
from sanactl.training.checks import check_run
from sanactl.training.loop import TrainingLoop
from sanactl.training.outputs import check_outputs
from sanactl.training.running import claim_target, load_state, state_bytes, tail_loss, take_steps
from sanactl.training.settings import FinetuneSettings, average_decay
from sanactl.training.sharding import local_parameters
from sanactl.training.state import identity_key

if TYPE_CHECKING:
    from accelerate import Accelerator

    from sanactl.checkpoint.open import Checkpoint
    from sanactl.data import TrainingData
    from sanactl.model.cpu import Workers
    from sanactl.training.memory_plan import MemoryPlan

__all__ = ["FinetuneSettings", "finetune", "is_result", "run_key"]

_RUN = 16  # digits of a run's key in its result's lineage


def finetune(
    checkpoint: Checkpoint,
    data: TrainingData,
    settings: FinetuneSettings,
    *,
    target: Path,
    teacher: Checkpoint | None = None,
    force: bool = False,
    progress: Progress = SILENT,
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Trains a checkpoint and writes the result.

    Args:
        checkpoint: what to start from; it names its text encoder and autoencoder.
        data: images with captions (`sanactl.data.open_training_data`).
        settings: how to train.
        target: the `.st` file to write.
        teacher: the checkpoint that was pruned, to learn from as well (`Teacher`).
        force: replace a target that is there.
        progress: told of each step.
        on_step: called for each step, those of an interrupted run included, with {"step", "loss", "lr",
            "grad_norm", "images_per_second"}, and {"teacher_loss", "feature_loss"} with a teacher.

    Returns:
        {"finished": True, "steps"} alone where the target is there already as the result of this very run; else
        {"finished": True, "steps", "loss": mean of the last tenth of the steps, "images_per_second",
        "optimizer_bytes"}, and "skipped", the number of damaged images, if there were any. After a SIGTERM, with
        nothing written but the state: {"finished": False, "step", "of", "state": its folder}.

    Raises:
        TrainingError: the loss or the gradient is not finite, and the state before that step has been saved; or the
            loss diverged; or another process of the run ended.
        KeyboardInterrupt: on Ctrl-C, once the step under way is done and the state has been saved.
        OutputExistsError: the target is there and `force` is false.
        UsageError: what `check_run` and `check_outputs` refuse, before anything is loaded.
        InputError: another run makes the same target right now; or all saved states are damaged.
    """
    settings = replace(settings, fsdp=settings.fsdp or launcher_shards())
    accelerator = open_accelerator(settings.precision, settings.device, shards=True)
    if settings.fsdp and accelerator.num_processes == 1:
        progress.note("--fsdp divides the model among processes, and this is the only one")
        settings = replace(settings, fsdp=False)
    key = run_key(checkpoint, settings, data, teacher)
    with contextlib.ExitStack() as held, one_falls_all_fall():

        def check() -> None:
            check_run(checkpoint, settings, teacher, accelerator.num_processes)
            check_outputs(target, force=force, tracker=settings.tracker)

        if claim_target(target, held, check=check, is_result=lambda: is_result(target, key), force=force):
            return {"finished": True, "steps": settings.steps}
        run = _Run(checkpoint, data, settings, target, teacher, accelerator, key, progress)
        return run.train(force, on_step)


@dataclass
class _Run:
    """One run of `finetune` that holds the lock on its target; the fields are that function's arguments."""

    checkpoint: Checkpoint
    data: TrainingData
    settings: FinetuneSettings
    target: Path
    teacher: Checkpoint | None
    accelerator: Accelerator
    key: str
    progress: Progress

    @property
    def about(self) -> dict[str, Any]:
        """What the result's lineage says about this run."""
        arguments = self.settings.arguments() | {"data": self.data.name, "run": self.key[:_RUN]}
        if self.teacher is not None:
            arguments["teacher"] = {"name": self.teacher.path.name, "digest": self.teacher.digest}
        return {"command": "finetune", "seed": self.settings.seed, "arguments": arguments}

    def train(self, force: bool, on_step: Callable[[dict[str, Any]], None] | None) -> dict[str, Any]:
        """What `finetune` does once the lock is held."""
        from accelerate.utils import gather_object

        from sanactl.model.saving import header_of, save_transformer
        from sanactl.training.ancestry import new_blocks
        from sanactl.training.conditions import Conditions
        from sanactl.training.gradient import BatchGradient
        from sanactl.training.models import open_models
        from sanactl.training.state import TrainingState
        from sanactl.training.teacher import open_teacher

        settings, accelerator, progress = self.settings, self.accelerator, self.progress
        blocks = new_blocks(self.checkpoint) if settings.new_blocks_only else None
        plan = self._plan(blocks)
        plan.check()
        progress.note(plan.summary)
        if plan.advice:
            progress.note(plan.advice)
        if settings.offload_optimizer and accelerator.device.type != "cuda":
            progress.note(
                f"--offload-optimizer changes nothing on {accelerator.device.type}: the state is in the machine's memory"
            )
        trained, optimizer, average = open_models(self.checkpoint, settings, accelerator.device, blocks)
        if average is not None:
            decay = f"{average_decay(settings):.4g}"
            progress.note(
                f"--ema {settings.ema:g}: the average's decay rises with the steps, to {decay} at the last"
            )
        header = header_of(self.checkpoint, self.target.parent, **self.about)
        state = TrainingState(self.target, self.key, header, keep_last=settings.keep_last)
        first = load_state(state, trained, optimizer, average, settings, accelerator, progress)
        with self._workers() as workers:
            conditions = Conditions(self.checkpoint, self.data, settings, accelerator.device, workers)
            self.data.announce(progress.note)
            if accelerator.is_main_process and (cut := conditions.long_captions()):
                progress.note(cut)
            if settings.cache and first < settings.steps:
                conditions.fill_cache(progress)
            taught = None
            if self.teacher is not None:
                taught = open_teacher(self.teacher, self.checkpoint, trained, settings, progress.note)
            gradient = BatchGradient(accelerator, trained, conditions, settings, taught)
            loop = TrainingLoop(accelerator, trained, optimizer, average, gradient, settings, state)

            target = self.target if accelerator.is_main_process else None

            def write() -> None:
                with _averaged(trained, average):
                    save_transformer(trained, self.checkpoint, target, force=force, **self.about)

            finished = take_steps(loop, first, self.target, write=write, progress=progress, on_step=on_step)
        if not finished:
            return {"finished": False, "step": loop.done, "of": settings.steps, "state": str(state.folder)}
        skipped = len(set(gather_object(list(self.data.skipped))))
        return {
            "finished": True,
            "steps": settings.steps,
            "loss": tail_loss(loop),
            "images_per_second": loop.speed,
            "optimizer_bytes": state_bytes(optimizer),
            **({"skipped": skipped} if skipped else {}),
        }

    def _workers(self) -> contextlib.AbstractContextManager[Workers | None]:
        """Threads for the parts of a batch, where these are computed side by side."""
        from sanactl.model.cpu import Workers
        from sanactl.training.parts import side_by_side

        share = self.settings.batch_size // self.accelerator.num_processes
        in_parts = side_by_side(self.accelerator.device, self.checkpoint.num_parameters, share)
        in_parts = in_parts and not self.settings.fsdp
        return Workers() if in_parts else contextlib.nullcontext()

    def _plan(self, blocks: list[int] | None) -> MemoryPlan:
        from sanactl.data import EncodedData
        from sanactl.training.memory_plan import plan_memory

        return plan_memory(
            self.checkpoint,
            self.settings,
            device=self.accelerator.device,
            processes=self.accelerator.num_processes,
            teacher=self.teacher,
            encoded=isinstance(self.data, EncodedData),
            blocks=blocks,
        )


def run_key(
    checkpoint: Checkpoint, settings: FinetuneSettings, data: TrainingData, teacher: Checkpoint | None = None
) -> str:
    """A digest of everything that the steps of a run depend on."""
    deciding = {**settings.deciding(), "checkpoint": checkpoint.digest, "data": data.identity}
    return identity_key({**deciding, "teacher": teacher and teacher.digest})


def is_result(target: Path, key: str) -> bool:
    """Whether the target is there and was made by the run of this key, by its own lineage."""
    from sanactl.checkpoint.open import open_checkpoint

    with contextlib.suppress(SanactlError, OSError):
        lineage = open_checkpoint(target).lineage
        return bool(lineage) and (lineage[-1].get("arguments") or {}).get("run") == key[:_RUN]
    return False


@contextlib.contextmanager
def _averaged(model: Any, average: Any) -> Iterator[None]:
    """The model with its averaged weights, if there are any, in place of the last step's."""
    if average is None:
        yield
        return
    parameters = local_parameters(model.parameters())
    average.store(parameters)
    average.copy_to(parameters)
    try:
        yield
    finally:
        average.restore(parameters)
