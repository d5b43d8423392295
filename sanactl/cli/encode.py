"""`sanactl encode`: latents and text embeddings, computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from sanactl.cli.frame.options import (
    BatchSize,
    CheckpointArgument,
    ComponentsFrom,
    Device,
    Force,
    MaxBad,
    Output,
    Revision,
    Seed,
    ShardOf,
    choices,
)
from sanactl.files.dtypes import WEIGHT_DTYPES

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def encode(
    checkpoint: CheckpointArgument = None,
    data: Annotated[
        Optional[str],
        typer.Option(
            "--data",
            "-d",
            metavar="DATA",
            help="Images with captions: a folder with metadata.jsonl or text files, a .csv, .tsv or .jsonl that names images, "
            ".tar or .parquet files, a dataset id, a .jsonl of image records, or - for those on stdin. "
            "Default: image records of the pipe, else the built-in world with --count.",
            show_default=False,
        ),
    ] = None,
    captions: Annotated[
        Optional[str],
        typer.Option(
            metavar="COLUMNS",
            help="Columns of captions to encode, with weights, such as text:0.7,short:0.3. Default: the first of text, "
            "caption, prompt and txt.",
            show_default=False,
        ),
    ] = None,
    caption_choice: Annotated[
        Optional[str],
        typer.Option(
            metavar="RULE",
            help="Encode the captions that have CLIP scores, and the scores, for finetune to draw among them as SANA does: "
            "clipscore, or clipscore:25:0.1. Default: the columns of --captions.",
            show_default=False,
        ),
    ] = None,
    min_clip_score: Annotated[
        Optional[float],
        typer.Option(
            metavar="FLOAT",
            help="With --caption-choice, leave out images whose prompt has a smaller CLIP score. Default: 22, as SANA-1.5.",
            show_default=False,
        ),
    ] = None,
    buckets: Annotated[
        bool,
        typer.Option(
            "--buckets", help="Keep each image's aspect ratio approximately, by SANA's bucket sizes."
        ),
    ] = False,
    streaming: Annotated[
        bool,
        typer.Option("--streaming", help="Read a dataset as a stream, without preparing a copy on disk."),
    ] = False,
    count: Annotated[
        int,
        typer.Option(
            min=0, metavar="INT", help="Number of examples to encode, from the first on; 0 encodes all."
        ),
    ] = 0,
    max_bad: MaxBad = 0,
    batch_size: BatchSize = 16,
    dtype: Annotated[
        Optional[str],
        typer.Option(
            help="Data type of the shards. Default: bf16 on a GPU, fp32 on a CPU.",
            show_default=False,
            **choices(*WEIGHT_DTYPES),
        ),
    ] = None,
    shard_size: Annotated[
        str,
        typer.Option(metavar="SIZE", help="Approximate size of a shard; a stopped run loses at most one."),
    ] = "1GB",
    shard: ShardOf = None,
    seed: Seed = 0,
    device: Device = None,
    components: ComponentsFrom = None,
    revision: Revision = None,
    output: Output = None,
    force: Force = False,
) -> None:
    """Compute latents and text embeddings once, for training without autoencoder and text encoder.

    [bold]sanactl encode base.st --data shots/ -o latents[/bold]
    [bold]sanactl finetune base.st --data latents[/bold]

    The second of four jobs of a cluster, which share a folder:
    [bold]sanactl encode base.st --data shots/ -o latents --shard 1/4[/bold]

    The output is a folder of safetensors shards. The checkpoint's record goes to
    stdout. A stopped run goes on where it was when the same command is given
    again.
    """
    from sanactl.checkpoint.write import parse_size
    from sanactl.cli.frame.outputs import check_folder
    from sanactl.cli.frame.render import show_checkpoints
    from sanactl.cli.frame.run import Invocation, checkpoint_record
    from sanactl.cli.frame.streams import find_checkpoint
    from sanactl.cli.frame.terminal import note
    from sanactl.data import DataSettings, open_examples
    from sanactl.data.encode import EncodeSettings
    from sanactl.data.encode import encode as write
    from sanactl.errors import InputError, UsageError
    from sanactl.files.human import human_bytes
    from sanactl.model.conditioning import pick_device, sampling_settings
    from sanactl.records.shards import read_shard

    part = read_shard(shard)
    if part is not None and force:
        raise UsageError(
            "--force and --shard exclude each other, since the jobs share a folder",
            hint="remove the folder before the first job starts",
        )
    run = Invocation("encode", seed=seed)
    if output is not None:
        check_folder(output)
    found, piped = find_checkpoint(
        checkpoint,
        revision=revision,
        also=("image",) if data in (None, "-") else (),
        native=True,
        components=components,
    )
    records = [r for r in piped if r["kind"] == "image"]
    if data == "-" and not records:
        raise InputError("stdin brought no image records", hint="the command before may have failed")
    where = pick_device(device) if device else None
    sampling = sampling_settings(found)
    settings = EncodeSettings(
        height=sampling.height,
        width=sampling.width,
        max_sequence_length=sampling.max_sequence_length,
        complex_human_instruction=sampling.complex_human_instruction,
        dtype=dtype or ("fp32" if pick_device(device).type == "cpu" else "bf16"),
        buckets=buckets,
        count=count,
        batch_size=batch_size,
        shard_bytes=parse_size(shard_size),
        max_bad=max_bad,
    )
    reading = DataSettings(
        seed=seed,
        height=sampling.height,
        width=sampling.width,
        captions=captions,
        caption_choice=caption_choice,
        min_clip_score=min_clip_score,
        streaming=streaming,
        max_bad=max_bad,
    )
    examples = open_examples(None if records else data, reading, records=records or None)
    target = output or Path(f"{found.name}-latents")
    run.uses(found)
    run.uses(examples.name)
    note(f"using {examples.about}")
    note(f"encoding {examples.name} into {target}")
    summary = write(
        found, examples, target, settings, device=where, force=force, shard=part, progress=run.progress
    )
    of_this = (
        "" if part is None else f" of shard {part}; when all {part.of} are there: sanactl merge {target}"
    )
    note(f"{summary['examples']:,} examples, {human_bytes(summary['bytes'])}, in {target}{of_this}")
    if part is not None:
        run.finish((target, "shard"))
        return
    run.finish((target, "latents"))
    record = {**checkpoint_record(found), "latents": str(target), "examples": summary["examples"]}
    if summary["skipped"]:
        record["skipped"] = len(summary["skipped"])
    run.emit([record], show=show_checkpoints)
