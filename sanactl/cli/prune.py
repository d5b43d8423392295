"""`sanactl prune`: depth pruning."""

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

_STAYS = "What stays (one of these)"
_CHOICE = "How the least important blocks are chosen"


@app.command()
def prune(
    checkpoint: CheckpointArgument = None,
    keep: Annotated[
        Optional[str],
        typer.Option(
            "--keep",
            "-k",
            metavar="INT[,INT...]",
            help="Keep this many blocks, the most important ones. Several depths, such as 40,30,20, give an output each.",
            show_default=False,
            rich_help_panel=_STAYS,
        ),
    ] = None,
    params: Annotated[
        Optional[str],
        typer.Option(
            "--params",
            metavar="COUNT",
            help="Keep as many blocks as come closest to this number of parameters, such as 1.6B or 600M.",
            show_default=False,
            rich_help_panel=_STAYS,
        ),
    ] = None,
    size: Annotated[
        Optional[str],
        typer.Option(
            "--bytes",
            metavar="SIZE",
            help="Keep as many blocks as fit into a file of this size, such as 4GB or 800MiB.",
            show_default=False,
            rich_help_panel=_STAYS,
        ),
    ] = None,
    blocks: Annotated[
        Optional[str],
        typer.Option(
            "--blocks",
            metavar="BLOCKS",
            help="Keep exactly these blocks, such as 0-9,12,-1. Numbers count from 0; -1 is the last block.",
            show_default=False,
            rich_help_panel=_STAYS,
        ),
    ] = None,
    drop: Annotated[
        Optional[str],
        typer.Option(
            "--drop",
            metavar="BLOCKS",
            help="Keep all but these blocks, such as 17,18.",
            show_default=False,
            rich_help_panel=_STAYS,
        ),
    ] = None,
    importance: Annotated[
        Optional[Path],
        typer.Option(
            "--importance",
            metavar="FILE",
            help="A file of block records. Default: those of the pipe, else the newest of this checkpoint in the"
            " folder's journal.",
            show_default=False,
            rich_help_panel=_CHOICE,
        ),
    ] = None,
    span: Annotated[
        bool,
        typer.Option(
            "--span",
            help="Drop one contiguous span of blocks, the one with the least total importance.",
            rich_help_panel=_CHOICE,
        ),
    ] = False,
    protect_head: Annotated[
        int,
        typer.Option(
            min=0, metavar="INT", help="Number of first blocks that are always kept.", rich_help_panel=_CHOICE
        ),
    ] = 0,
    protect_tail: Annotated[
        int,
        typer.Option(
            min=0, metavar="INT", help="Number of last blocks that are always kept.", rich_help_panel=_CHOICE
        ),
    ] = 0,
    dry_run: DryRun = False,
    pipeline: Pipeline = False,
    link: Link = False,
    shard_size: ShardSize = "5GB",
    components: ComponentsFrom = None,
    revision: Revision = None,
    output: Output = None,
    force: Force = False,
) -> None:
    """Keep the most important blocks, in their order (paper, section 2.4).

    Measure block importance, then keep 30 blocks:
    [bold]sanactl importance base-d60.st | sanactl prune --keep 30[/bold]
    Three depths in one reading of the source:
    [bold]sanactl prune base-d60.st --keep 40,30,20[/bold]
    A number of parameters; the dropped blocks lie side by side:
    [bold]sanactl prune base-d60.st --params 1.6B --span[/bold]
    Blocks by number, which needs no importance:
    [bold]sanactl prune base-d60.st --blocks 0-9,50-59[/bold]

    -o names a .st or .safetensors file, or a folder. sanactl convert writes a
    .pth.
    """
    from sanactl.cli.frame.streams import find_checkpoint
    from sanactl.cli.frame.surgery import Job, Writing, execute
    from sanactl.cli.prune_choice import choose, tell
    from sanactl.errors import UsageError
    from sanactl.surgery.choice import Wish
    from sanactl.surgery.names import pruned_name
    from sanactl.surgery.prune import plan_prune

    if output is not None and keep is not None and "," in keep:
        raise UsageError("-o names one output, but --keep asks for several depths", hint="leave -o out")
    parent, records = find_checkpoint(checkpoint, revision=revision, native=True, components=components)
    wish = Wish(keep, params, size, blocks, drop, protect=(protect_head, protect_tail), span=span)
    choices, file = choose(parent, records, importance, wish)
    jobs = []
    for choice in choices:
        name = pruned_name(parent, len(choice.kept), pipeline=pipeline)
        jobs.append(Job(plan_prune(parent, choice.kept), name, choice.as_fields()))
        tell(choice)
    writing = Writing(output, force, dry_run, shard_size, pipeline, link)
    execute("prune", parent, jobs, writing, inputs=[] if file is None else [file])
