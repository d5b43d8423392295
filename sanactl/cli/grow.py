"""`sanactl grow`: depth growth."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from sanactl.cli.options import CheckpointArgument, DryRun, Force, Output, Revision, Seed, ShardSize

app = typer.Typer(rich_markup_mode="rich")


@app.command()
def grow(
    checkpoint: CheckpointArgument = None,
    to: Annotated[int, typer.Option("--to", min=1, help="Blocks of the result.")] = ...,  # type: ignore[assignment]
    init: Annotated[
        str, typer.Option("--init", help="How new blocks begin: partial, cyclic, replicate.")
    ] = "partial",
    drop_last: Annotated[
        Optional[int],
        typer.Option(
            min=0, help="Leave out the last blocks first. Default: 2 for partial, else 0.", show_default=False
        ),
    ] = None,
    zero_init: Annotated[
        Optional[bool],
        typer.Option(
            "--zero-init/--no-zero-init",
            help="New blocks begin as the identity. Default: yes for partial, no for copies.",
            show_default=False,
        ),
    ] = None,
    sigma: Annotated[float, typer.Option(min=0, help="Of new weights, N(0, sigma^2).")] = 0.02,
    sigma_depthwise: Annotated[float, typer.Option(min=0, help="Of new depth-wise convolutions.")] = 0.2,
    seed: Seed = 0,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Run parent and child on random latents and tell the largest difference."
        ),
    ] = False,
    dry_run: DryRun = False,
    shard_size: ShardSize = "5GB",
    revision: Revision = None,
    output: Output = None,
    force: Force = False,
) -> None:
    """Make a checkpoint deeper, keeping what it knows (section 2.2, figure 11).

    [bold]sanactl grow base.st --to 60 --init partial[/bold]
    [bold]sanactl grow base.st --to 30 --drop-last 0 --verify[/bold]       exactly the parent's function
    """
    from sanactl.cli.streams import find_checkpoint
    from sanactl.cli.surgery import execute
    from sanactl.surgery.grow import plan_grow

    parent, _ = find_checkpoint(checkpoint, revision=revision)
    plan = plan_grow(
        parent, to, init, drop_last, zero_init, sigma=sigma, sigma_depthwise=sigma_depthwise, seed=seed
    )
    execute(
        "grow",
        parent,
        [(plan, f"{parent.name}-d{to}.st")],
        output=output,
        force=force,
        dry_run=dry_run,
        shard_size=shard_size,
        seed=seed,
        verify=verify,
    )
