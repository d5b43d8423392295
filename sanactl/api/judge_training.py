"""`sanactl.train_judge`: a judge from labelled images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sanactl.api.inputs import (
    DeviceLike,
    DtypeLike,
    PathLike,
    Records,
    as_progress,
    as_records,
    as_target,
    check_seed,
    device_name,
    precision_name,
)
from sanactl.files.progress import Progress
from sanactl.training.judge.settings import TuningSettings

if TYPE_CHECKING:
    from sanactl.records.types import ScoreRecord

__all__ = ["train_judge"]


def train_judge(
    records: Records | None = None,
    *,
    model: str | None = None,
    label: str = TuningSettings.label,
    held_out: Records | None = None,
    held_out_share: float = TuningSettings.held_out_share,
    balance: bool = TuningSettings.balance,
    dialogue: str = TuningSettings.dialogue,
    max_pixels: int = TuningSettings.max_pixels,
    max_bad: int = TuningSettings.max_bad,
    epochs: float = TuningSettings.epochs,
    steps: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    optimizer: str = TuningSettings.optimizer,
    schedule: str = TuningSettings.schedule,
    warmup_ratio: float = TuningSettings.warmup_ratio,
    clip: float = TuningSettings.clip,
    weight_decay: float = TuningSettings.weight_decay,
    train: str = TuningSettings.train,
    lora: int = TuningSettings.lora,
    quantize: str = TuningSettings.quantize,
    merge: bool = TuningSettings.merge,
    accumulate: int = TuningSettings.accumulate,
    gradient_checkpointing: bool = TuningSettings.gradient_checkpointing,
    precision: DtypeLike | None = None,
    device: DeviceLike | None = TuningSettings.device,
    save_every: int | None = None,
    keep_last: int = TuningSettings.keep_last,
    tracker: str | None = TuningSettings.tracker,
    resume: bool = TuningSettings.resume,
    rendered: bool = False,
    start: PathLike | None = None,
    warmup_steps: int = 2000,
    pool_size: int = 24_000,
    seed: int = TuningSettings.seed,
    output: PathLike | None = None,
    force: bool = False,
    progress: bool | Progress = False,
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> list[ScoreRecord]:
    """Fine-tunes a vision-language model into a judge, or trains the built-in world's from random weights.

    Ctrl-C saves the state; the same call goes on from there.

    Args:
        records: labelled image records (of `sanactl.evaluate`), a JSONL file of them, or a folder of samples.
        model: the folder or Hub id of an image-text-to-text model of transformers; None for the built-in world's judge.
        label: the field with the truth.
        held_out, held_out_share: labelled image records to measure on; without them, the share of the prompts that is kept.
        balance: draw right and wrong images in turn.
        dialogue, max_pixels: the question ("paper", "reference", "vqascore" or a text file); larger images are made
            smaller, 0 for no limit.
        max_bad: damaged images to skip.
        epochs: images to draw, as a multiple of those that there are.
        steps, batch_size, lr: updates of the weights, images of each, the largest learning rate; None is what `epochs`
            needs, 8 and 2e-5, and for the built-in world's judge 4000, 32 and 2e-3.
        optimizer: one of `sanactl.optim.OPTIMIZERS`.
        schedule, warmup_ratio: of the learning rate: "constant", "cosine" or "linear"; share of the steps until it has its
            value.
        clip, weight_decay: largest norm of the gradient, 0 sets no bound; decoupled weight decay.
        train: "all" weights, "projector+llm" (all but the vision tower) or "llm".
        lora, quantize, merge: rank of adapters on the language model; "4bit" for the weights under them; whether they are
            added to the weights at the end.
        accumulate, gradient_checkpointing, precision: less memory for more time; "fp32" or "bf16" (autocast) or a
            `torch.dtype`, None is bf16 on a GPU and fp32 on a CPU.
        device: where to train, a name or a `torch.device`; None is the best there is.
        save_every, keep_last, resume: steps between saved states (0: ten minutes); how many are kept; go on from one.
        tracker: also log to "tensorboard", "wandb" or "trackio".
        rendered, start, warmup_steps, pool_size: of the built-in world's judge alone: train on rendered pictures without
            records; a judge to go on from; steps of the vision tower alone; rendered pictures.
        seed: of the images' order and of new weights.
        output: the folder to write; by default `judge` in the current folder.
        force: replace it where it is there.
        progress: True for a bar of the steps.
        on_step: with `model`, called after each step with "step", "loss", "accuracy", "lr", "grad_norm" and
            "images_per_second".

    Returns:
        score records of held-out prompts. With `model`: balanced accuracy, pair accuracy and AUC before and after the
        training, and the gain, each with an interval over prompts.

    Raises:
        UsageError: settings that do not go together, or an option of the other kind of judge.
        InputError: no labels, labels of one kind, an evaluation prompt, a missing image, or a model that cannot be loaded.
        OutputExistsError: the output is there from something else, and `force` was not given.
        TrainingError: the loss is not finite or diverged, memory is not enough, or the run was terminated.

    Source: section 2.5 and appendix B; NVILA's last stage of training.
    """
    options = dict(locals())
    from sanactl.training.judge.choices import check_kind

    check_kind(model, options)
    check_seed(seed)
    target = as_target(output, "judge")
    if model is None:
        return _builtin(target, options)
    options["device"], options["precision"] = device_name(device), precision_name(precision)
    return _tuned(model, target, options)


def _builtin(target: Path, options: dict[str, Any]) -> list[ScoreRecord]:
    from sanactl.errors import UsageError
    from sanactl.world.judge_measure import score_records
    from sanactl.world.judge_settings import builtin_training
    from sanactl.world.train_judge import train_judge as train

    records, rendered = options["records"], options["rendered"]
    if rendered is (records is not None):
        raise UsageError(
            "rendered takes no records" if rendered else "train_judge needs records, or rendered=True"
        )
    start = options["start"]
    figures = train(
        None if rendered else list(as_records(records, "image")),
        target,
        builtin_training({**options, "start": None if start is None else Path(start)}),
        restart=not options["resume"],
        force=options["force"],
        progress=as_progress(options["progress"]),
    )
    return cast("list[ScoreRecord]", score_records(figures))


def _tuned(model: str, target: Path, options: dict[str, Any]) -> list[ScoreRecord]:
    from sanactl.errors import TrainingError, UsageError
    from sanactl.model.processes import agree, open_processes
    from sanactl.training.figures import FiguresFile, figures_path
    from sanactl.training.judge.choices import tuning_settings
    from sanactl.training.judge.data import split_records
    from sanactl.training.judge.result import check_judge_target
    from sanactl.training.judge.tune import model_to_train, tune_judge

    records, kept, force = options["records"], options["held_out"], options["force"]
    if records is None:
        raise UsageError("train_judge needs labelled image records")
    settings = tuning_settings(options)
    model_to_train(model)
    check_judge_target(target, force=force, tracker=settings.tracker)
    sink, on_step = as_progress(options["progress"]), options["on_step"]
    given = list(as_records(records, "image"))
    held = None if kept is None else list(as_records(kept, "image"))
    data = agree(
        lambda: split_records(given, held, label=settings.label, share=settings.held_out_share, progress=sink)
    )
    first = open_processes().is_main_process
    figures = FiguresFile(figures_path(target), target, sink.note)

    def step(point: dict[str, Any]) -> None:
        if first:
            figures.add(point)
        if on_step is not None:
            on_step(point)

    with figures:
        done = tune_judge(model, data, settings, target=target, force=force, progress=sink, on_step=step)
    if not done["finished"]:
        raise TrainingError(
            f"terminated at step {done['step']} of {done['of']}; its state is in {done['state']}",
            hint="the same call goes on from there",
        )
    if first:
        figures.finish()
    return cast("list[ScoreRecord]", done["scores"])
