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
    choices,
)

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def convert(
    checkpoint: CheckpointArgument = None,
    dtype: Annotated[
        Optional[str],
        typer.Option(
            "--dtype",
            help="Data type that every tensor is cast to, rounded to nearest even. Default: the source's own.",
            show_default=False,
            **choices("bf16", "fp16", "fp32"),
            rich_help_panel="Output",
        ),
    ] = None,
    config: Annotated[
        Optional[Path],
        typer.Option(
            "--config",
            metavar="FILE",
            help="The diffusers config.json of a file that has no config. Default: the file's own; that of a native .pth "
            "follows from its shapes, if its width is a published one.",
            show_default=False,
        ),
    ] = None,
    variant: Annotated[
        Optional[str],
        typer.Option(
            "--variant",
            metavar="NAME",
            help="Variant of the weights in a folder or Hub id, such as fp16. Default: the plain one, else bf16.",
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
    """Change a checkpoint's format without loss, or its dtype. The output's name decides the format.

    A native .pth to one file, cast to bf16:
    [bold]sanactl convert sana.pth -o sana.st --dtype bf16[/bold]
    The reference code's native layout:
    [bold]sanactl convert base.st -o base.pth[/bold]
    A diffusers transformer folder, and a whole pipeline folder:
    [bold]sanactl convert base.st -o base/[/bold]
    [bold]sanactl convert base.st --pipeline -o base-pipeline/[/bold]

    A Hub id is a source, too. Between formats no value changes: a file that is
    converted there and back is the same, byte for byte.
    """
    from sanactl.checkpoint.given import with_components
    from sanactl.checkpoint.locate import read_json
    from sanactl.checkpoint.open import open_checkpoint
    from sanactl.cli.frame.streams import find_checkpoint
    from sanactl.cli.frame.surgery import Job, Writing, execute
    from sanactl.errors import UsageError
    from sanactl.surgery.convert import parse_dtype, plan_convert
    from sanactl.surgery.names import converted_name

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
    name = converted_name(parent, dtype, pipeline=pipeline)
    if output is None and parent.path.absolute() == Path(name).absolute():
        raise UsageError(
            f"{parent.path} is a .st file already",
            hint="-o names another format (name.pth, folder/), --dtype another dtype",
        )
    job = Job(plan_convert(parent, output or Path(name), dtype), name)
    execute("convert", parent, [job], Writing(output, force, dry_run, shard_size, pipeline, link))
