"""`sanactl finetune`: flow matching on images with captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from sanactl.cli import finetune_options as option
from sanactl.cli import finetune_running_options as running
from sanactl.cli.frame.options import CheckpointArgument, ComponentsFrom, Force, Output, Revision, Seed
from sanactl.data.settings import DataSettings
from sanactl.training.settings import FinetuneSettings

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

DEFAULTS, READING = FinetuneSettings(), DataSettings()


@app.command()
def finetune(
    checkpoint: CheckpointArgument = None,
    data: option.Data = None,
    captions: option.Captions = READING.captions,
    caption_choice: option.CaptionChoice = READING.caption_choice,
    min_clip_score: option.MinClipScore = READING.min_clip_score,
    buckets: option.Buckets = READING.buckets,
    streaming: option.Streaming = READING.streaming,
    max_bad: option.MaxBad = READING.max_bad,
    workers: option.Workers = DEFAULTS.workers,
    text_dropout: option.TextDropout = DEFAULTS.text_dropout,
    flow_shift: option.FlowShift = DEFAULTS.flow_shift,
    text_padding: option.TextPadding = DEFAULTS.text_padding,
    steps: option.Steps = DEFAULTS.steps,
    batch_size: option.Batch = DEFAULTS.batch_size,
    lr: option.LearningRate = None,
    scale_lr: option.ScaleLr = DEFAULTS.scale_lr,
    optimizer: option.OptimizerName = DEFAULTS.optimizer,
    scheme: option.Scheme = DEFAULTS.scheme,
    code: option.OldScheme = "",
    schedule: option.Schedule = DEFAULTS.schedule,
    warmup: option.Warmup = DEFAULTS.warmup,
    clip: option.Clip = None,
    weight_decay: option.WeightDecay = DEFAULTS.weight_decay,
    ema: option.Ema = DEFAULTS.ema,
    train_new_blocks_only: option.NewBlocksOnly = DEFAULTS.new_blocks_only,
    lora: option.Lora = DEFAULTS.lora,
    teacher: option.TeacherRef = None,
    teacher_weight: option.TeacherWeight = DEFAULTS.teacher_weight,
    feature_weight: option.FeatureWeight = DEFAULTS.feature_weight,
    accumulate: running.Accumulate = DEFAULTS.accumulate,
    gradient_checkpointing: running.Checkpointing = DEFAULTS.gradient_checkpointing,
    fsdp: running.Fsdp = DEFAULTS.fsdp,
    offload_optimizer: running.OffloadOptimizer = DEFAULTS.offload_optimizer,
    precision: running.Precision = None,
    device: running.TrainDevice = DEFAULTS.device,
    cache: running.Cache = DEFAULTS.cache,
    save_every: running.SaveEvery = DEFAULTS.save_every,
    keep_last: running.KeepLast = DEFAULTS.keep_last,
    tracker: running.Tracker = DEFAULTS.tracker,
    resume: running.Resume = DEFAULTS.resume,
    seed: Seed = 0,
    components: ComponentsFrom = None,
    revision: Revision = None,
    output: Output = None,
    force: Force = False,
) -> None:
    """Train a checkpoint on images with captions, by flow matching (paper, section 2.4 for the recovery).

    Recover a pruned checkpoint, without and with a teacher:
    [bold]sanactl finetune base-d60-d30.st --data shots/ --steps 100[/bold]
    [bold]sanactl finetune base-d60-d30.st --teacher base-d60.st[/bold]
    On all GPUs of this machine:
    [bold]accelerate launch -m sanactl finetune base.st --data shots/[/bold]

    Ctrl-C saves the state, and the same command goes on from there. The loss of
    every step goes to NAME.train.jsonl.
    """
    from sanactl.checkpoint.open import open_checkpoint
    from sanactl.cli.frame.render import show_checkpoints
    from sanactl.cli.frame.run import Invocation, checkpoint_record, given_key
    from sanactl.cli.frame.streams import find_checkpoint
    from sanactl.cli.frame.terminal import is_first_process, note
    from sanactl.data import open_training_data
    from sanactl.errors import InputError, OutputExistsError
    from sanactl.model.processes import agree
    from sanactl.training.checks import check_run
    from sanactl.training.choices import check_choices, finetune_settings, reading_settings, trained_name
    from sanactl.training.figures import FiguresFile, figures_path
    from sanactl.training.finetune import finetune as train
    from sanactl.training.finetune import is_result, run_key
    from sanactl.training.outputs import check_outputs

    scheme = scheme or code
    check_choices(
        optimizer=optimizer, schedule=schedule, scale_lr=scale_lr, scheme=scheme, text_padding=text_padding
    )
    run = Invocation("finetune", seed=seed)
    found, piped = find_checkpoint(
        checkpoint,
        revision=revision,
        also=("image",) if None in (checkpoint, data) or data == "-" else (),
        native=True,
        components=components,
    )
    images = [r for r in piped if r["kind"] == "image"]
    if images and data not in (None, "-"):
        note(f"using --data {data}; the pipe's {len(images)} image records are left")
        images = []
    if data == "-" and not images:
        raise InputError("stdin brought no image records", hint="the command before may have failed")
    settings = finetune_settings(
        found,
        lr=lr,
        clip=clip,
        precision=precision,
        steps=steps,
        batch_size=batch_size,
        accumulate=accumulate,
        scale_lr=scale_lr,
        optimizer=optimizer,
        scheme=scheme,
        schedule=schedule,
        warmup=warmup,
        weight_decay=weight_decay,
        text_dropout=text_dropout,
        flow_shift=flow_shift,
        text_padding=text_padding,
        ema=ema,
        seed=seed,
        gradient_checkpointing=gradient_checkpointing,
        fsdp=fsdp,
        offload_optimizer=offload_optimizer,
        new_blocks_only=train_new_blocks_only,
        lora=lora,
        teacher_weight=teacher_weight,
        feature_weight=feature_weight,
        cache=cache,
        workers=workers,
        save_every=save_every,
        keep_last=keep_last,
        device=device,
        tracker=tracker,
        resume=resume,
    )
    reading = reading_settings(
        found,
        settings,
        captions=captions,
        caption_choice=caption_choice,
        min_clip_score=min_clip_score,
        buckets=buckets,
        streaming=streaming,
        max_bad=max_bad,
    )
    taught_by = open_checkpoint(teacher) if teacher else None
    target = output or Path(trained_name(found, steps))

    def check() -> None:
        check_run(found, settings, taught_by)
        check_outputs(target, force=force, tracker=tracker)

    agree(check)
    source = open_training_data(None if images else data, reading, records=images or None)
    note(f"using {source.about}")
    run.uses(found)
    run.uses(source.name)
    if taught_by is not None:
        run.uses(taught_by)
    run.key(
        digest=found.digest,
        **given_key(found),
        data=source.identity,
        settings=settings.deciding(),
        **({"teacher": taught_by.digest} if taught_by else {}),
    )

    def made_before() -> bool:
        try:
            return run.made_before(target, force=force)
        except OutputExistsError:
            # Stopped between the checkpoint's last write and the journal's line: `train` finds nothing left to do.
            if not is_result(target, run_key(found, settings, source, taught_by)):
                raise
            return False

    if agree(made_before):
        run.emit([checkpoint_record(open_checkpoint(target))], show=show_checkpoints)
        return
    note(
        f"training {found.path} on {source.name}: {optimizer}, learning rate {settings.effective_learning_rate:g}"
        + ("" if scale_lr == "none" else f" ({settings.learning_rate:g}, scaled by {scale_lr})")
    )
    figures = FiguresFile(figures_path(target), target, note)
    with figures:
        summary = train(
            found,
            source,
            settings,
            target=target,
            teacher=taught_by,
            force=force,
            progress=run.progress,
            on_step=figures.add if is_first_process() else None,
        )
    if not summary.pop("finished"):
        # No checkpoint record: what comes behind in a pipe must not take this for the result.
        state = {"kind": "score", "metric": "train_state", "checkpoint": str(target), **summary}
        run.emit([{**state, "resume": "the same command goes on from there"}])
        raise typer.Exit(130)
    if not is_first_process():
        return
    figures.finish()
    made = open_checkpoint(target)
    outputs: list[tuple[Any, ...]] = [(figures.path, "score")] if figures.path.exists() else []
    run.finish(*outputs, (target, "checkpoint"), digest=made.digest)
    run.emit([{**checkpoint_record(made), **summary}], show=show_checkpoints)
