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
            help="This many blocks, the most important ones; several depths at once: 40,30,20.",
            show_default=False,
            rich_help_panel=_STAYS,
        ),
    ] = None,
    params: Annotated[
        Optional[str],
        typer.Option(
            "--params",
            help="As many blocks as come closest to this many parameters: 1.6B, 600M.",
            show_default=False,
            rich_help_panel=_STAYS,
        ),
    ] = None,
    size: Annotated[
        Optional[str],
        typer.Option(
            "--bytes",
            help="As many blocks as fit into a file of this size: 4GB, 800MiB.",
            show_default=False,
            rich_help_panel=_STAYS,
        ),
    ] = None,
    blocks: Annotated[
        Optional[str],
        typer.Option(
            "--blocks",
            help="Exactly these blocks, from 0; -1 is the last: 0-9,12,50-59.",
            show_default=False,
            rich_help_panel=_STAYS,
        ),
    ] = None,
    drop: Annotated[
        Optional[str],
        typer.Option(
            "--drop", help="All but these blocks: 17,18.", show_default=False, rich_help_panel=_STAYS
        ),
    ] = None,
    importance: Annotated[
        Optional[Path],
        typer.Option(
            "--importance",
            help="A file of block records; by default those of the pipe, else the newest of this checkpoint in the"
            " folder's journal.",
            show_default=False,
            rich_help_panel=_CHOICE,
        ),
    ] = None,
    span: Annotated[
        bool,
        typer.Option(
            "--span",
            help="Drop one contiguous span of blocks: the one with the least total importance.",
            rich_help_panel=_CHOICE,
        ),
    ] = False,
    protect_head: Annotated[
        int,
        typer.Option(min=0, help="This many first blocks stay in any case.", rich_help_panel=_CHOICE),
    ] = 0,
    protect_tail: Annotated[
        int,
        typer.Option(min=0, help="This many last blocks stay in any case.", rich_help_panel=_CHOICE),
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
    """Keep the most important blocks, in their order (section 2.4).

    [bold]sanactl importance base-d60.st -p calib.txt | sanactl prune --keep 30[/bold]
    [bold]sanactl prune base-d60.st --keep 40,30,20[/bold]           three depths, the source read once
    [bold]sanactl prune base-d60.st --params 1.6B --span[/bold]      a contiguous span goes
    [bold]sanactl prune base-d60.st --blocks 0-9,50-59[/bold]        no importance needed

    -o names a .st or .safetensors file, or a folder; sanactl convert makes a .pth of it.
    """
    from sanactl.cli.frame.streams import find_checkpoint
    from sanactl.cli.frame.surgery import Job, Writing, execute, natural_name
    from sanactl.cli.prune_choice import choose, tell
    from sanactl.errors import UsageError
    from sanactl.surgery.prune import plan_prune

    if output is not None and keep is not None and "," in keep:
        raise UsageError("-o names one output, but --keep asks for several depths", hint="leave -o out")
    parent, records = find_checkpoint(checkpoint, revision=revision, native=True, components=components)
    asked = {"--keep": keep, "--params": params, "--bytes": size, "--blocks": blocks, "--drop": drop}
    protect = (protect_head, protect_tail)
    choices, file = choose(parent, records, importance, asked, protect=protect, span=span)
    jobs = []
    for choice in choices:
        name = natural_name(f"{parent.name}-d{len(choice.kept)}", pipeline=pipeline)
        jobs.append(Job(plan_prune(parent, choice.kept), name, choice.as_fields()))
        tell(choice)
    writing = Writing(output, force, dry_run, shard_size, pipeline, link)
    execute("prune", parent, jobs, writing, inputs=[] if file is None else [file])
