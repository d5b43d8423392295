"""`sanactl prune`: depth pruning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from sanactl.cli.options import CheckpointArgument, DryRun, Force, Output, Revision, ShardSize

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def prune(
    checkpoint: CheckpointArgument = None,
    keep: Annotated[
        Optional[str],
        typer.Option("--keep", "-k", help="How many blocks stay, the most important; several: 40,30,20."),
    ] = None,
    blocks: Annotated[
        Optional[str], typer.Option(help="Exactly these blocks stay: 0-9,12,50-59.", show_default=False)
    ] = None,
    drop: Annotated[Optional[str], typer.Option(help="These blocks go: 17,18.", show_default=False)] = None,
    parameters: Annotated[
        Optional[str],
        typer.Option(help="As many blocks stay as come closest to 1.6B or so.", show_default=False),
    ] = None,
    size: Annotated[
        Optional[str], typer.Option(help="As many blocks stay as fit into 4GB or so.", show_default=False)
    ] = None,
    importance: Annotated[
        Optional[Path],
        typer.Option(help="Block records; by default those of the pipe or the journal.", show_default=False),
    ] = None,
    protect_head: Annotated[int, typer.Option(min=0, help="This many first blocks stay in any case.")] = 0,
    protect_tail: Annotated[int, typer.Option(min=0, help="This many last blocks stay in any case.")] = 0,
    dry_run: DryRun = False,
    shard_size: ShardSize = "5GB",
    revision: Revision = None,
    output: Output = None,
    force: Force = False,
) -> None:
    """Keep the most important blocks, in their order (section 2.4).

    [bold]sanactl importance base-d60.st -p calib.txt | sanactl prune --keep 30[/bold]
    [bold]sanactl prune base-d60.st --blocks 0-9,50-59[/bold]
    """
    from sanactl.cli.prune_choice import choose
    from sanactl.cli.streams import find_checkpoint
    from sanactl.cli.surgery import execute
    from sanactl.errors import UsageError
    from sanactl.surgery.prune import plan_prune

    if output is not None and keep is not None and "," in keep:
        raise UsageError("-o names one output, but --keep asks for several depths", hint="leave -o away")
    parent, records = find_checkpoint(checkpoint, revision=revision, native=True)
    asked = {"--keep": keep, "--blocks": blocks, "--drop": drop, "--parameters": parameters, "--size": size}
    chosen = choose(parent, records, importance, asked, protect=(protect_head, protect_tail))
    plans = [(plan_prune(parent, kept), f"{parent.name}-d{len(kept)}.st") for kept in chosen]
    execute("prune", parent, plans, output=output, force=force, dry_run=dry_run, shard_size=shard_size)
