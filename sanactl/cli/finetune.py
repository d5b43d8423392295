"""`sanactl finetune`: flow matching on images with captions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from sanactl.cli.options import CheckpointArgument, Force, Output, Revision, Seed

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def finetune(
    checkpoint: CheckpointArgument = None,
    data: Annotated[
        Optional[str],
        typer.Option(
            "--data",
            "-d",
            help="A folder of images with metadata.jsonl, a dataset id, a .jsonl of image records, or - for those "
            "on stdin. "
            "Default: image records of the pipe, else the built-in world's endless stream.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Updates.")] = 100,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "-b", min=1, help="Images a step, over all processes.")
    ] = 16,
    micro_batch: Annotated[
        int, typer.Option(min=0, help="Of these, so many at once through the model; 0: all. Less memory.")
    ] = 0,
    lr: Annotated[
        Optional[float],
        typer.Option(
            min=0, help="Learning rate. Default: the checkpoint's own, else 2e-5.", show_default=False
        ),
    ] = None,
    optimizer: Annotated[str, typer.Option(help="came8bit, came, adamw or adamw8bit.")] = "came8bit",
    schedule: Annotated[
        str, typer.Option(help="constant, cosine or linear (the last two go down to 0).")
    ] = "constant",
    warmup: Annotated[int, typer.Option(min=0, help="Steps of linear warm-up.")] = 10,
    clip: Annotated[
        Optional[float],
        typer.Option(
            min=0,
            help="Largest gradient norm; 0: any. Default: the checkpoint's own, else 0.1.",
            show_default=False,
        ),
    ] = None,
    weight_decay: Annotated[float, typer.Option(min=0, help="As AdamW's.")] = 0.0,
    ema: Annotated[float, typer.Option(min=0, max=1, help="Decay of the weights' average; 0: none.")] = 0.0,
    text_dropout: Annotated[float, typer.Option(min=0, max=1, help="Share of captions left empty.")] = 0.1,
    flow_shift: Annotated[float, typer.Option(min=0, help="Of the noise levels.")] = 3.0,
    precision: Annotated[
        Optional[str],
        typer.Option(
            help="fp32, or bf16 autocast. Default: bf16 on a GPU, fp32 on a CPU.", show_default=False
        ),
    ] = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, slower.")
    ] = False,
    cache: Annotated[int, typer.Option(min=0, help="Encode this many images once and train on these.")] = 0,
    save_every: Annotated[
        int, typer.Option(min=0, help="Save the state every so many steps; 0: every ten minutes.")
    ] = 0,
    resume: Annotated[
        bool, typer.Option("--resume/--restart", help="Continue an interrupted run of the same settings.")
    ] = True,
    seed: Seed = 0,
    revision: Revision = None,
    output: Output = None,
    force: Force = False,
) -> None:
    """Train a checkpoint by flow matching. Ctrl-C saves the state; the same command goes on from there.

    [bold]sanactl finetune base-d60-d30.st --data shots/ --steps 100[/bold]
    [bold]accelerate launch -m sanactl finetune base.st --data shots/ --steps 1000[/bold]

    The loss of every step goes to NAME.train.jsonl.
    """
    from dataclasses import asdict

    from sanactl.cli.render import show_checkpoints
    from sanactl.cli.run import Invocation, checkpoint_record
    from sanactl.cli.streams import find_checkpoint, is_first_process, note
    from sanactl.errors import InputError
    from sanactl.io.checkpoint import open_checkpoint
    from sanactl.io.records import write_records
    from sanactl.stages.conditioning import sampling_settings
    from sanactl.stages.data import open_training_data
    from sanactl.stages.finetune import FinetuneSettings
    from sanactl.stages.finetune import finetune as train

    _check_choice("--optimizer", optimizer, ("came8bit", "came", "adamw", "adamw8bit"))
    _check_choice("--schedule", schedule, ("constant", "cosine", "linear"))
    run = Invocation("finetune", seed=seed)
    found, piped = find_checkpoint(
        checkpoint, revision=revision, also=("image",) if data in (None, "-") else ()
    )
    images = [r for r in piped if r["kind"] == "image"]
    if data == "-" and not images:
        raise InputError("stdin brought no image records", hint="the command before may have failed")
    sampling = sampling_settings(found)
    settings = FinetuneSettings(
        steps=steps,
        batch_size=batch_size,
        micro_batch=micro_batch,
        learning_rate=lr if lr is not None else float(found.sampling.get("learning_rate", 2e-5)),
        optimizer=optimizer,
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
        precision=_precision(precision),
        gradient_checkpointing=gradient_checkpointing,
        cache=cache,
        save_every=save_every,
    )
    target = output or Path(f"{found.name}-ft{steps}.st")
    source = open_training_data(
        None if images else data,
        seed=seed,
        height=settings.height,
        width=settings.width,
        records=images or None,
    )
    run.uses(found)
    run.uses(source.name)
    run.key(digest=found.digest, data=source.identity, settings=asdict(settings))
    if is_first_process() and run.made_before(target, force=force):
        run.emit([checkpoint_record(open_checkpoint(target))], show=show_checkpoints)
        return
    note(f"training {found.path} on {source.name}: {optimizer}, learning rate {settings.learning_rate:g}")
    curve: list[dict[str, Any]] = []
    summary = train(
        found,
        target,
        settings,
        data=source,
        force=force,
        resume=resume,
        progress=run.progress,
        on_step=curve.append,
    )
    if not is_first_process():
        return
    made = open_checkpoint(target)
    log = target.with_suffix(".train.jsonl")
    about = {"kind": "score", "metric": "train_loss", "checkpoint": str(target)}
    write_records(({**about, **point} for point in curve), log, force=True)
    run.finish((log, "score"), (target, "checkpoint"), digest=made.digest)
    run.emit([{**checkpoint_record(made), **summary}], show=show_checkpoints)


def _check_choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    from sanactl.errors import UsageError

    if value not in allowed:
        raise UsageError(f"{option} {value}: choose one of {', '.join(allowed)}")


def _precision(asked: str | None) -> str:
    """accelerate's name of the precision that was asked for."""
    from sanactl.errors import UsageError

    if asked == "fp16":
        raise UsageError(
            "--precision fp16: SANA's activations leave fp16's range and give NaN (NVlabs/Sana issue 65)",
            hint="use bf16",
        )
    if asked is None:
        import torch

        return "bf16" if torch.cuda.is_available() else "no"
    _check_choice("--precision", asked, ("fp32", "no", "bf16"))
    return "no" if asked == "fp32" else asked
