"""`sanactl train-judge`: a judge from labelled images (paper, appendix B)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sanactl.cli import finetune_options as tuning
from sanactl.cli import finetune_running_options as running
from sanactl.cli import train_judge_options as option
from sanactl.cli.frame.options import DryRun, Force, Output, RecordsArgument, Seed
from sanactl.training.judge.settings import TuningSettings

if TYPE_CHECKING:
    from sanactl.cli.frame.run import Invocation

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

DEFAULTS = TuningSettings()
_LABELLED = "sanactl sample | sanactl eval geneval | sanactl train-judge"


@app.command()
def train_judge(
    records: RecordsArgument = None,
    model: option.Model = None,
    label: option.Label = DEFAULTS.label,
    held_out: option.HeldOut = None,
    held_out_share: option.HeldOutShare = DEFAULTS.held_out_share,
    balance: option.Balance = DEFAULTS.balance,
    dialogue: option.Dialogue = DEFAULTS.dialogue,
    max_pixels: option.MaxPixels = DEFAULTS.max_pixels,
    max_bad: tuning.MaxBad = DEFAULTS.max_bad,
    epochs: option.Epochs = DEFAULTS.epochs,
    steps: option.Steps = None,
    batch_size: option.Batch = None,
    lr: option.LearningRate = None,
    optimizer: tuning.OptimizerName = DEFAULTS.optimizer,
    schedule: tuning.Schedule = DEFAULTS.schedule,
    warmup_ratio: option.WarmupRatio = DEFAULTS.warmup_ratio,
    clip: option.Clip = DEFAULTS.clip,
    weight_decay: tuning.WeightDecay = DEFAULTS.weight_decay,
    train: option.Train = DEFAULTS.train,
    lora: option.Lora = DEFAULTS.lora,
    quantize: option.Quantize = DEFAULTS.quantize,
    merge: option.Merge = DEFAULTS.merge,
    accumulate: running.Accumulate = DEFAULTS.accumulate,
    gradient_checkpointing: running.Checkpointing = DEFAULTS.gradient_checkpointing,
    precision: running.Precision = None,
    device: running.TrainDevice = DEFAULTS.device,
    save_every: option.SaveEvery = None,
    keep_last: running.KeepLast = DEFAULTS.keep_last,
    tracker: running.Tracker = DEFAULTS.tracker,
    resume: running.Resume = DEFAULTS.resume,
    rendered: option.Rendered = False,
    start: option.Start = None,
    dry_run: DryRun = False,
    warmup_steps: option.WarmupSteps = 2000,
    pool_size: option.PoolSize = 24_000,
    seed: Seed = 0,
    output: Output = None,
    force: Force = False,
) -> None:
    """Train a judge on sampled images (paper, appendix B). A detector labels them.

    Any vision-language model of transformers, whole or by adapters:
    [bold]sanactl train-judge labelled.jsonl --model Qwen/Qwen3-VL-2B-Instruct[/bold]
    [bold]sanactl train-judge labelled.jsonl --model VLM --lora 64 --quantize 4bit[/bold]
    How many images, which steps, and how much memory that would take:
    [bold]sanactl train-judge labelled.jsonl --model VLM --dry-run[/bold]
    The built-in world's judge, from random weights:
    [bold]sanactl prompts shapes --split train -n 500 > train.jsonl[/bold]
    [bold]sanactl sample --prompts train.jsonl -n 8 -o judge-samples[/bold]
    [bold]sanactl train-judge judge-samples/images.jsonl -o judge[/bold]

    Evaluation prompts are refused. Balanced accuracy, AUC and more on held-out
    prompts go to stdout as score records; with --model before and after.
    """
    options = {name: value for name, value in locals().items() if name not in ("model", "records", "force")}
    from sanactl.cli.frame.outputs import check_folder
    from sanactl.cli.frame.run import Invocation
    from sanactl.errors import UsageError
    from sanactl.training.judge.choices import check_kind

    check_kind(model, options)
    if dry_run and model is None:
        raise UsageError("--dry-run is for --model VLM")
    run = Invocation("train-judge", seed=seed)
    target = output or Path("judge")
    check_folder(target)
    if model is None:
        _train_builtin(run, records, target, options, force=force)
    else:
        _tune(run, records, model, target, options, force=force)


def _train_builtin(
    run: Invocation, records: str | None, target: Path, options: dict[str, Any], *, force: bool
) -> None:
    """The built-in world's judge, from random weights."""
    from sanactl.cli.frame.render_scores import show_scores
    from sanactl.cli.frame.streams import find_records
    from sanactl.errors import UsageError
    from sanactl.files.atomic import check_target
    from sanactl.world.judge_measure import score_records
    from sanactl.world.judge_settings import builtin_training
    from sanactl.world.train_judge import train_judge as train

    rendered = options["rendered"]
    if rendered and records is not None:
        raise UsageError("--rendered takes no records")
    settings = builtin_training(options)
    check_target(target, force)
    labelled = None
    if not rendered:
        stream, source = find_records(records, ("image",), what="labelled images", hint=_LABELLED)
        run.uses(source)
        labelled = list(run.counted(stream, "labelled images", source=source))
    figures = train(
        labelled, target, settings, restart=not options["resume"], force=force, progress=run.progress
    )
    run.emit(score_records(figures), show=show_scores, take_all=True)
    run.finish((target, "judge"))


def _tune(
    run: Invocation, records: str | None, model: str, target: Path, options: dict[str, Any], *, force: bool
) -> None:
    """A vision-language model, fine-tuned."""
    from sanactl.cli.frame.render_scores import show_scores
    from sanactl.cli.frame.stdin import first_reads_alone
    from sanactl.cli.frame.streams import find_records
    from sanactl.cli.frame.terminal import is_first_process, note
    from sanactl.cli.render_plan import show_training_plan
    from sanactl.model.processes import agree
    from sanactl.training.figures import FiguresFile, figures_path
    from sanactl.training.judge.choices import tuning_settings
    from sanactl.training.judge.data import JudgeData, split_records
    from sanactl.training.judge.planned import training_plan
    from sanactl.training.judge.result import check_judge_target
    from sanactl.training.judge.tune import model_to_train, tune_judge

    def find() -> tuple[TuningSettings, JudgeData]:
        settings = tuning_settings(options)
        model_to_train(model)
        check_judge_target(target, force=force, tracker=settings.tracker)
        stream, source = find_records(records, ("image",), what="labelled images", hint=_LABELLED)
        run.uses(source)
        labelled = list(run.counted(stream, "labelled images", source=source))
        kept = None
        if options["held_out"] is not None:
            stream, source = find_records(options["held_out"], ("image",), what="held-out images")
            run.uses(source)
            kept = list(stream)
        share = settings.held_out_share
        return settings, split_records(
            labelled, kept, label=settings.label, share=share, progress=run.progress
        )

    with first_reads_alone():
        settings, data = agree(find)
    if options["dry_run"]:
        if is_first_process():
            run.emit([training_plan(model_to_train(model), data, settings, target)], show=show_training_plan)
        return
    note(
        f"training {model} on {len(data.train):,} images; {len(data.held_out):,} images of other prompts are held out"
    )
    figures = FiguresFile(figures_path(target), target, note)
    with figures:
        done = tune_judge(
            model,
            data,
            settings,
            target=target,
            memory=Path.cwd(),
            force=force,
            progress=run.progress,
            on_step=figures.add if is_first_process() else None,
        )
    if not done.pop("finished"):
        state = {"kind": "score", "metric": "train_state", "judge": str(target), **done}
        run.emit([{**state, "resume": "the same command goes on from there"}])
        raise typer.Exit(130)
    if not is_first_process():
        return
    figures.finish()
    run.emit(done["scores"], show=show_scores, take_all=True)
    outputs = [(figures.path, "score")] if figures.path.exists() else []
    run.finish(*outputs, (target, "judge"))
