"""`train-judge --model`: fine-tunes a vision-language model on labelled images, restartable as `finetune` is.

The model is asked what the judge will be asked, in the same words, and learns the token that the answer begins with. It
shares `finetune`'s loop, states, lock and trackers. Which images a step has is a function of seed and step, so a run that
was stopped takes the steps of one that was not, and several processes take the steps of one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError, TrainingError, UsageError
from sanactl.files.human import human_bytes
from sanactl.files.progress import SILENT, Progress
from sanactl.judging.backends.adapters import base_of
from sanactl.judging.backends.labels import joined_labels
from sanactl.judging.backends.places import place_of
from sanactl.model.memory import free_memory, out_of_memory
from sanactl.model.processes import one_falls_all_fall, open_accelerator
from sanactl.training.judge.data import JudgeData
from sanactl.training.judge.planned import kept_memory
from sanactl.training.judge.result import base_identity, is_judge_result, write_judge
from sanactl.training.judge.settings import TuningSettings
from sanactl.training.outputs import check_beside
from sanactl.training.running import claim_target, load_state, tail_loss, take_steps
from sanactl.training.state import identity_key

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from sanactl.judging.backends.vlm import VlmJudge
    from sanactl.model.cpu import Workers
    from sanactl.records.records import Record
    from sanactl.training.judge.trained import TrainedModel

__all__ = ["model_to_train", "tune_judge"]


def model_to_train(model: str) -> str:
    """The folder or Hub id of a model to train, by a judge's name.

    Raises:
        UsageError: it names another kind of judge.
        InputError: no such folder, or one that holds no whole model.
    """
    name = model.removeprefix("vlm:")
    if name.startswith(("nvila:", "builtin:", "oracle", "openai:", "http:", "https:")):
        raise UsageError(
            f"{model} is no model of transformers, and train-judge --model trains those alone",
            hint="name the folder or Hub id of an image-text-to-text model",
        )
    place = place_of(name)
    if Path(place).is_dir() and base_of(Path(place)) is not None:
        raise InputError(f"{model} is an adapter", hint="train its base, or a judge that is merged")
    return place


def tune_judge(
    model: str,
    data: JudgeData,
    settings: TuningSettings,
    *,
    target: Path,
    memory: Path | None = None,
    force: bool = False,
    progress: Progress = SILENT,
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Trains a judge, writes its folder, and measures it on held-out images before and after.

    Args:
        model: a folder or Hub id of an image-text-to-text model with a chat template.
        data: labelled images (`split_records`).
        settings: how to train.
        target: the folder to write.
        memory: the folder in whose memory verdicts on held-out images are kept; None for nowhere.
        force: replace a target that is there.
        progress: told of each step.
        on_step: called for each step, those of an interrupted run included, with {"step", "loss", "accuracy", "lr",
            "grad_norm", "images_per_second"}.

    Returns:
        {"finished": True, "scores": score records, "steps", "loss": mean of the last tenth of the steps}. Where the
        target is there already as the result of this very run, nothing is trained, and "loss" is missing. After a SIGTERM
        {"finished": False, "step", "of", "state": its folder}.

    Raises:
        TrainingError: the loss or the gradient is not finite, the loss diverged, memory is not enough, or another process
            of the run ended.
        KeyboardInterrupt: on Ctrl-C, once the step under way is done and the state has been saved.
        OutputExistsError: the target is there and `force` is false.
        UsageError: settings that exclude each other.
        InputError: the model cannot be loaded or asked; an image is damaged; another run makes the same target.
    """
    settings = settings.planned(len(data.train))
    settings.check()
    place = model_to_train(model)
    accelerator = open_accelerator(settings.precision, settings.device)
    key = identity_key(
        {**settings.deciding(), "data": data.identity, "model": base_identity(place), "kind": "judge"}
    )
    with contextlib.ExitStack() as held, one_falls_all_fall():

        def check() -> None:
            settings.check(accelerator.num_processes)
            check_beside(target, force=force, tracker=settings.tracker)

        is_there = claim_target(
            target, held, check=check, is_result=lambda: is_judge_result(target, key), force=force
        )
        run = _Run(model, place, data, settings, target, accelerator, key, progress)
        try:
            before = run.measure(place, model, memory)
            if not is_there:
                trained = run.train(force, on_step)
                if not trained["finished"]:
                    return trained
            else:
                trained = {"finished": True, "steps": settings.steps}
            after = run.measure(str(target), str(target), memory)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise _no_memory(error, settings) from error
    from sanactl.training.judge.measure import compared

    return {**trained, "scores": compared(data, before, after)}


def _no_memory(error: BaseException, settings: TuningSettings) -> TrainingError:
    """A lack of memory, with the options that help."""
    reason = str(error).splitlines()[0] if str(error) else "MemoryError"
    savers = [
        *([] if settings.gradient_checkpointing else ["--gradient-checkpointing"]),
        f"--accumulate {max(settings.batch_size, 2 * settings.accumulate)}",
        *([] if settings.lora else ["--lora 64"]),
        *([] if settings.quantize else ["--lora 64 --quantize 4bit"]),
        "--max-pixels 500000",
    ]
    return TrainingError(
        f"there is not enough memory to train: {reason}", hint=f"one or several of {', '.join(savers)}"
    )


@dataclass
class _Run:
    """One run that holds the lock on its target; the fields are `tune_judge`'s."""

    model: str
    place: str
    data: JudgeData
    settings: TuningSettings
    target: Path
    accelerator: Accelerator
    key: str
    progress: Progress

    @property
    def about(self) -> dict[str, Any]:
        """What the result says about this run."""
        truth = [self.data.truth(record) for record in self.data.train]
        base = str(Path(self.place).resolve()) if Path(self.place).is_dir() else self.place
        return {
            "base": base,
            **({"labels": joined_labels(self.data.sources)} if self.data.sources else {}),
            "label": self.data.label,
            "images": len(truth),
            "right": sum(truth),
            "prompts": len({str(record["prompt"]) for record in self.data.train}),
            "data": self.data.identity,
            "settings": self.settings.arguments(),
        }

    def measure(self, place: str, name: str, memory: Path | None) -> list[Record]:
        """The held-out images' records with the verdicts of a judge that is opened as `judge` opens it."""
        from sanactl.judging.backends.vlm import VlmJudge
        from sanactl.training.judge.measure import verdicts_on

        settings, accelerator = self.settings, self.accelerator
        judge = VlmJudge.load(
            place,
            str(accelerator.device),
            quantize=settings.quantize,
            max_pixels=settings.max_pixels,
            dialogue=settings.dialogue,
        )
        judge.name = name
        mine = (accelerator.process_index, accelerator.num_processes)
        found = verdicts_on(judge, self.data, memory, self.progress, process=mine)
        del judge
        free_memory()
        return found

    def train(self, force: bool, on_step: Callable[[dict[str, Any]], None] | None) -> dict[str, Any]:
        """Takes the steps and writes the result."""
        from accelerate.utils import set_seed

        from sanactl.optim import build_optimizer
        from sanactl.training.judge.gradient import AnswerGradient
        from sanactl.training.judge.order import Order
        from sanactl.training.judge.trained import TrainedModel
        from sanactl.training.loop import TrainingLoop
        from sanactl.training.state import TrainingState

        settings, accelerator, progress = self.settings, self.accelerator, self.progress
        judge = self._open()
        set_seed(settings.seed % 2**32)  # of new adapters
        trained = TrainedModel(judge.model, settings, self.model)
        progress.note(_plan(trained, settings))
        optimizer = build_optimizer(
            settings.optimizer,
            trained.named,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        state = TrainingState(self.target, self.key, keep_last=settings.keep_last)
        first = load_state(state, trained, optimizer, None, settings, accelerator, progress)
        order = Order([self.data.truth(r) for r in self.data.train], settings.seed, balance=settings.balance)
        with self._workers(trained) as workers:
            gradient = AnswerGradient(judge, self.data, order, settings, accelerator, trained, workers)
            loop = TrainingLoop(accelerator, trained, optimizer, None, gradient, settings, state)

            def write() -> None:
                write_judge(
                    self.target,
                    trained,
                    self.place,
                    merge=settings.merge,
                    key=self.key,
                    about=self.about,
                    force=force,
                )

            finished = take_steps(loop, first, self.target, write=write, progress=progress, on_step=on_step)
        if not finished:
            return {"finished": False, "step": loop.done, "of": settings.steps, "state": str(state.folder)}
        loss = tail_loss(loop)
        skipped = len(gradient.skipped)
        return {
            "finished": True,
            "steps": settings.steps,
            "loss": loss,
            **({"skipped": skipped} if skipped else {}),
        }

    def _open(self) -> VlmJudge:
        """The model as a judge that words the questions; its weights are those to train."""
        from sanactl.files.paths import utf8_name
        from sanactl.judging.backends.vlm import VlmJudge
        from sanactl.judging.backends.vlm_load import load_vlm
        from sanactl.judging.dialogue import open_dialogue
        from sanactl.model.guard import reading
        from sanactl.model.loading import quiet_libraries

        settings = self.settings
        quiet_libraries()
        with utf8_name(self.place) as folder:
            model, processor = load_vlm(
                folder,
                device=self.accelerator.device,
                dtype=_dtype(settings),
                quantize=settings.quantize,
            )
        with reading(f"{self.model} as a judge"):
            return VlmJudge(
                model,
                processor,
                self.model,
                dialogue=open_dialogue(settings.dialogue),
                max_pixels=settings.max_pixels,
            )

    def _workers(self, trained: TrainedModel) -> contextlib.AbstractContextManager[Workers | None]:
        """Threads for the parts of a batch of a small model on a CPU."""
        from sanactl.model.cpu import Workers
        from sanactl.training.parts import side_by_side

        share = self.settings.batch_size // self.accelerator.num_processes
        size = sum(parameter.numel() for parameter in trained.model.parameters())
        in_parts = not self.settings.quantize and side_by_side(self.accelerator.device, size, share)
        return Workers() if in_parts else contextlib.nullcontext()


def _dtype(settings: TuningSettings) -> torch.dtype:
    """Of the loaded weights: those that are trained are fp32, those under adapters as they are computed with."""
    import torch

    return torch.bfloat16 if settings.lora and settings.precision == "bf16" else torch.float32


def _plan(trained: TrainedModel, settings: TuningSettings) -> str:
    """A line about what is trained, and the memory that stays from step to step."""
    parts = kept_memory(trained, settings)
    count, every = (
        sum(p.numel() for p in parameters)
        for parameters in (trained.parameters(), trained.model.parameters())
    )
    listed = ", ".join(f"{name} {human_bytes(size)}" for name, size in parts.items())
    return (
        f"training {count:,} of {every:,} weights for {settings.steps:,} steps needs about"
        f" {human_bytes(sum(parts.values()))} ({listed}), without activations"
    )
