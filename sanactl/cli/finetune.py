"""`sanactl finetune`: flow matching on images with captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from sanactl.cli import finetune_options as option
from sanactl.cli.frame.options import CheckpointArgument, Force, Output, Revision, Seed

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def finetune(
    checkpoint: CheckpointArgument = None,
    data: option.Data = None,
    captions: option.Captions = None,
    buckets: option.Buckets = False,
    streaming: option.Streaming = False,
    max_bad: option.MaxBad = 0,
    workers: option.Workers = None,
    text_dropout: option.TextDropout = 0.1,
    flow_shift: option.FlowShift = 3.0,
    steps: option.Steps = 100,
    batch_size: option.Batch = 16,
    lr: option.LearningRate = None,
    scale_lr: option.ScaleLr = "none",
    optimizer: option.OptimizerName = "came8bit",
    code: option.Code = "",
    schedule: option.Schedule = "constant",
    warmup: option.Warmup = 10,
    clip: option.Clip = None,
    weight_decay: option.WeightDecay = 0.0,
    ema: option.Ema = 0.0,
    train_new_blocks_only: option.NewBlocksOnly = False,
    lora: option.Lora = 0,
    teacher: option.TeacherRef = None,
    teacher_weight: option.TeacherWeight = 0.5,
    feature_weight: option.FeatureWeight = 1.0,
    accumulate: option.Accumulate = 1,
    gradient_checkpointing: option.Checkpointing = False,
    precision: option.Precision = None,
    device: option.TrainDevice = None,
    cache: option.Cache = 0,
    save_every: option.SaveEvery = 0,
    keep_last: option.KeepLast = 2,
    tracker: option.Tracker = None,
    resume: option.Resume = True,
    seed: Seed = 0,
    revision: Revision = None,
    output: Output = None,
    force: Force = False,
) -> None:
    """Train a checkpoint by flow matching. Ctrl-C saves the state; the same command goes on from there.

    [bold]sanactl finetune base-d60-d30.st --data shots/ --steps 100[/bold]
    [bold]sanactl finetune base-d60-d30.st --teacher base-d60.st[/bold]
    [bold]accelerate launch -m sanactl finetune base.st --data shots/ --steps 1000[/bold]

    The loss of every step goes to NAME.train.jsonl.
    """
    from sanactl.checkpoint.open import open_checkpoint
    from sanactl.cli.frame.render import show_checkpoints
    from sanactl.cli.frame.run import Invocation, checkpoint_record
    from sanactl.cli.frame.streams import find_checkpoint, is_first_process, note
    from sanactl.data import open_training_data
    from sanactl.errors import InputError, OutputExistsError
    from sanactl.model.conditioning import pixels_per_latent, sampling_settings
    from sanactl.model.processes import agree
    from sanactl.optim.blockwise import CODES
    from sanactl.training.checks import check_run
    from sanactl.training.figures import FiguresFile, figures_path
    from sanactl.training.finetune import FinetuneSettings, is_result, run_key
    from sanactl.training.finetune import finetune as train
    from sanactl.training.outputs import check_outputs
    from sanactl.training.settings import SCALINGS, SCHEDULES

    _check_choice("--optimizer", optimizer, ("came8bit", "came", "adamw", "adamw8bit"))
    _check_choice("--schedule", schedule, SCHEDULES)
    _check_choice("--scale-lr", scale_lr, SCALINGS)
    if code:
        _check_choice("--code", code, CODES)
    run = Invocation("finetune", seed=seed)
    found, piped = find_checkpoint(
        checkpoint, revision=revision, also=("image",) if None in (checkpoint, data) or data == "-" else ()
    )
    images = [r for r in piped if r["kind"] == "image"]
    if images and data not in (None, "-"):
        note(f"using --data {data}; the pipe's {len(images)} image records are left")
        images = []
    if data == "-" and not images:
        raise InputError("stdin brought no image records", hint="the command before may have failed")
    sampling = sampling_settings(found)
    settings = FinetuneSettings(
        steps=steps,
        batch_size=batch_size,
        accumulate=accumulate,
        learning_rate=lr if lr is not None else float(found.sampling.get("learning_rate", 2e-5)),
        scale_lr=scale_lr,
        optimizer=optimizer,
        code=code,
        schedule=schedule,
        warmup=warmup,
        clip=clip if clip is not None else float(found.sampling.get("clip", 0.1)),
        weight_decay=weight_decay,
        text_dropout=text_dropout,
        flow_shift=flow_shift,
        ema=ema,
        seed=seed,
        height=sampling.height,
        width=sampling.width,
        max_sequence_length=sampling.max_sequence_length,
        complex_human_instruction=sampling.complex_human_instruction,
        precision=_precision(precision, device),
        gradient_checkpointing=gradient_checkpointing,
        new_blocks_only=train_new_blocks_only,
        lora=lora,
        teacher_weight=teacher_weight,
        feature_weight=feature_weight,
        cache=cache,
        workers=workers,
        save_every=save_every,
        keep_last=keep_last,
    )
    taught_by = open_checkpoint(teacher) if teacher else None
    target = output or Path(f"{found.name}-ft{steps}.st")

    def check() -> None:
        check_run(found, settings, taught_by)
        check_outputs(target, force=force, tracker=tracker)

    agree(check)
    source = open_training_data(
        None if images else data,
        seed=seed,
        height=settings.height,
        width=settings.width,
        records=images or None,
        captions=captions,
        buckets=buckets,
        streaming=streaming,
        max_bad=max_bad,
        multiple=pixels_per_latent(found) * int(found.config.get("patch_size", 1)),
    )
    note(f"using {source.about}")
    run.uses(found)
    run.uses(source.name)
    if taught_by is not None:
        run.uses(taught_by)
    run.key(
        digest=found.digest,
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
            target,
            settings,
            data=source,
            teacher=taught_by,
            device=device,
            tracker=tracker,
            force=force,
            resume=resume,
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


def _check_choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    from sanactl.errors import UsageError

    if value not in allowed:
        raise UsageError(f"{option} {value}: choose one of {', '.join(allowed)}")


def _precision(asked: str | None, device: str | None) -> str:
    """accelerate's name of the precision that was asked for."""
    from sanactl.errors import UsageError

    if asked == "fp16":
        raise UsageError(
            "--precision fp16: SANA's activations leave fp16's range and give NaN (NVlabs/Sana issue 65)",
            hint="use bf16",
        )
    if asked is None:
        import torch

        on_gpu = torch.cuda.is_available() and (device or "cuda").startswith("cuda")
        return "bf16" if on_gpu else "no"
    _check_choice("--precision", asked, ("fp32", "no", "bf16"))
    return "no" if asked == "fp32" else asked
