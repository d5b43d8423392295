"""`sanactl convert`: another format or dtype."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from sanactl.cli.frame.options import (
    CheckpointArgument,
    ComponentsFrom,
    DryRun,
    Force,
    Link,
    Output,
    Pipeline,
    Revision,
    ShardSize,
)

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def convert(
    checkpoint: CheckpointArgument = None,
    dtype: Annotated[
        Optional[str],
        typer.Option(
            "--dtype",
            metavar="bf16|fp16|fp32",
            help="Cast every tensor, rounding to nearest even. Default: bytes stay as they are.",
            show_default=False,
            rich_help_panel="Output",
        ),
    ] = None,
    config: Annotated[
        Optional[Path],
        typer.Option(
            "--config",
            help="The diffusers config.json of a file that has none in it; a native .pth of a published width needs none.",
            show_default=False,
        ),
    ] = None,
    variant: Annotated[
        Optional[str],
        typer.Option(
            "--variant",
            help="Of a folder or Hub id with several: fp16, bf16. Default: the plain one, else bf16.",
            show_default=False,
        ),
    ] = None,
    components: ComponentsFrom = None,
    revision: Revision = None,
    dry_run: DryRun = False,
    pipeline: Pipeline = False,
    link: Link = False,
    shard_size: ShardSize = "5GB",
    output: Output = None,
    force: Force = False,
) -> None:
    """Change a checkpoint's format, loss-free, or its dtype. The output's name decides the format.

    [bold]sanactl convert Efficient-Large-Model/SANA1.5_4.8B_1024px_diffusers -o sana.st[/bold]
    [bold]sanactl convert sana.pth -o sana.st --dtype bf16[/bold]          native to one file, cast
    [bold]sanactl convert base.st -o base.pth[/bold]                       the reference code's native layout
    [bold]sanactl convert base.st -o base/[/bold]                          a diffusers transformer folder
    [bold]sanactl convert base.st --pipeline -o base-pipeline/[/bold]      a whole pipeline folder

    Between formats no value is computed: there and back is the same file, byte for byte.
    """
    from sanactl.checkpoint.given import with_components
    from sanactl.checkpoint.locate import read_json
    from sanactl.checkpoint.open import open_checkpoint
    from sanactl.cli.frame.streams import find_checkpoint
    from sanactl.cli.frame.surgery import Job, Writing, execute, natural_name
    from sanactl.errors import UsageError
    from sanactl.surgery.convert import parse_dtype, plan_convert

    if dtype is not None:
        parse_dtype(dtype)
    if config is not None or variant is not None:
        if checkpoint in (None, "-"):
            raise UsageError("--config and --variant need a named checkpoint")
        known = read_json(config) if config is not None else None
        parent = open_checkpoint(
            str(checkpoint), revision=revision, variant=variant, native=True, config=known
        )
    else:
        parent, _ = find_checkpoint(checkpoint, revision=revision, native=True, builtin=False)
    if components:
        parent = with_components(parent, components)
    name = natural_name(f"{parent.name}-{dtype}" if dtype else parent.name, pipeline=pipeline)
    if output is None and parent.path.absolute() == Path(name).absolute():
        raise UsageError(
            f"{parent.path} is a .st file already",
            hint="-o names another format (name.pth, folder/), --dtype another dtype",
        )
    job = Job(plan_convert(parent, output or Path(name), dtype), name)
    execute("convert", parent, [job], Writing(output, force, dry_run, shard_size, pipeline, link))
