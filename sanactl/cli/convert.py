"""`sanactl convert`: another format or dtype."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from sanactl.cli.options import CheckpointArgument, DryRun, Force, Output, Revision, ShardSize

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def convert(
    checkpoint: CheckpointArgument = None,
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
    dry_run: DryRun = False,
    shard_size: ShardSize = "5GB",
    revision: Revision = None,
    output: Output = None,
    force: Force = False,
) -> None:
    """Change a checkpoint's format, loss-free, or its dtype. The output's name decides the format.

    [bold]sanactl convert Efficient-Large-Model/SANA1.5_4.8B_1024px_diffusers -o sana.st[/bold]
    [bold]sanactl convert sana.pth -o sana.st --dtype bf16[/bold]          native to one file, cast
    [bold]sanactl convert base.st -o base/[/bold]                          a diffusers transformer folder
    [bold]sanactl convert base.st --pipeline -o base-pipeline/[/bold]      a whole pipeline folder

    Between formats no value is computed: there and back is the same file, byte for byte.
    """
    from sanactl.cli.streams import find_checkpoint
    from sanactl.cli.surgery import execute
    from sanactl.errors import UsageError
    from sanactl.surgery.convert import parse_dtype, plan_convert

    if copy and not pipeline:
        raise UsageError("--copy goes with --pipeline")
    if dtype is not None:
        parse_dtype(dtype)
    parent, _ = find_checkpoint(checkpoint, revision=revision, native=True)
    name = f"{parent.name}-{dtype}" if dtype else parent.name
    name += "-pipeline" if pipeline else ".st"
    if output is None and parent.path.absolute() == Path(name).absolute():
        raise UsageError(
            f"{parent.path} is a .st file already",
            hint="-o names another format (name.pth, folder/), --dtype another dtype",
        )
    target = output or Path(name)
    execute(
        "convert",
        parent,
        [(plan_convert(parent, target, dtype), name)],
        output=output,
        force=force,
        dry_run=dry_run,
        shard_size=shard_size,
        pipeline=(copy,) if pipeline else None,
    )
