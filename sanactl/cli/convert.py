"""`sanactl convert`: another format or dtype."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from sanactl.cli.options import DryRun, Force, Output, Revision, ShardSize

app = typer.Typer(rich_markup_mode="rich")


@app.command()
def convert(
    checkpoint: Annotated[
        str, typer.Argument(help="A .st or .safetensors file, a native .pth, a diffusers folder or a Hub id.")
    ],
    output: Output = None,
    dtype: Annotated[
        Optional[str], typer.Option("--dtype", help="Cast to bf16, fp16 or fp32.", show_default=False)
    ] = None,
    pipeline: Annotated[
        bool,
        typer.Option("--pipeline", help="Write a whole pipeline folder, for SanaPipeline.from_pretrained."),
    ] = False,
    copy: Annotated[
        bool, typer.Option("--copy", help="With --pipeline: copy the companions, in place of links.")
    ] = False,
    shard_size: ShardSize = "5GB",
    dry_run: DryRun = False,
    revision: Revision = None,
    force: Force = False,
) -> None:
    """Change a checkpoint's format, loss-free, or its dtype. The output's name decides the format.

    [bold]sanactl convert Efficient-Large-Model/SANA1.5_4.8B_1024px_diffusers -o sana.st[/bold]
    [bold]sanactl convert sana.pth -o sana.st --dtype bf16[/bold]          native to one file, cast
    [bold]sanactl convert base.st -o base/[/bold]                          a diffusers transformer folder
    [bold]sanactl convert base.st --pipeline -o base-pipeline/[/bold]      a whole pipeline folder
    """
    from sanactl.cli.surgery import execute
    from sanactl.errors import UsageError
    from sanactl.io.checkpoint import open_checkpoint
    from sanactl.surgery.convert import plan_convert

    if copy and not pipeline:
        raise UsageError("--copy goes with --pipeline")
    parent = open_checkpoint(checkpoint, revision=revision, native=True)
    name = (
        f"{parent.name}-{dtype}.st"
        if dtype
        else f"{parent.name}-pipeline"
        if pipeline
        else f"{parent.name}.st"
    )
    target = output or Path(name)
    execute(
        "convert",
        parent,
        [(plan_convert(parent, target, dtype), str(target))],
        output=target,
        force=force,
        dry_run=dry_run,
        shard_size=shard_size,
        pipeline=pipeline,
        copy=copy,
    )
