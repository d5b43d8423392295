"""`sanactl grow`: depth growth."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from sanactl.cli.options import CheckpointArgument, DryRun, Force, Output, Revision, Seed, ShardSize
from sanactl.surgery.new_blocks import SIGMA_NOISE

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def grow(
    checkpoint: CheckpointArgument = None,
    to: Annotated[
        Optional[int],
        typer.Option(
            "--to", min=1, help="Blocks of the result. Without it, only --qk-norm.", show_default=False
        ),
    ] = None,
    init: Annotated[
        str,
        typer.Option(
            "--init", help="How new blocks begin: partial, cyclic, replicate, progressive or interpolate."
        ),
    ] = "partial",
    drop_last: Annotated[
        Optional[int],
        typer.Option(
            min=0, help="Leave out the last blocks first. Default: 2 for partial, else 0.", show_default=False
        ),
    ] = None,
    position: Annotated[
        str, typer.Option(help="Where new blocks go: end, interleave, or before which kept block.")
    ] = "end",
    zero_init: Annotated[
        Optional[bool],
        typer.Option(
            "--zero-init/--no-zero-init",
            help="New blocks begin as the identity. Default: yes for partial, no for copies.",
            show_default=False,
        ),
    ] = None,
    qk_norm: Annotated[
        bool, typer.Option("--qk-norm", help="Insert SANA-1.5's QK norms, of weights one (appendix C).")
    ] = False,
    sigma: Annotated[float, typer.Option(min=0, help="Of new weights, N(0, sigma^2).")] = 0.02,
    sigma_depthwise: Annotated[float, typer.Option(min=0, help="Of new depth-wise convolutions.")] = 0.2,
    sigma_noise: Annotated[float, typer.Option(min=0, help="Of progressive's noise.")] = SIGMA_NOISE,
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
    from sanactl.errors import UsageError
    from sanactl.surgery.grow import plan_grow, plan_qk_norm

    if to is None and not qk_norm:
        raise UsageError("grow needs --to, the number of blocks", hint="for example --to 60")
    parent, _ = find_checkpoint(checkpoint, revision=revision, native=True)
    if to is None:
        plan = plan_qk_norm(parent)
    else:
        where = int(position) if position.isdecimal() else position
        plan = plan_grow(
            parent, to, init, drop_last, zero_init, sigma, sigma_depthwise, sigma_noise, seed, where, qk_norm
        )
    execute(
        "grow",
        parent,
        [(plan, f"{parent.name}-qknorm.st" if to is None else f"{parent.name}-d{to}.st")],
        output=output,
        force=force,
        dry_run=dry_run,
        shard_size=shard_size,
        seed=seed,
        verify=verify,
    )
