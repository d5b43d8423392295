"""`sanactl grow`: depth growth."""

from __future__ import annotations

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
    Seed,
    ShardSize,
    choices,
)
from sanactl.surgery.layout import INITS
from sanactl.surgery.new_blocks import SIGMA, SIGMA_DEPTHWISE, SIGMA_NOISE

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

_GROWTH = "Growth"
_RANDOM = "Random weights"


@app.command()
def grow(
    checkpoint: CheckpointArgument = None,
    to: Annotated[
        Optional[int],
        typer.Option(
            "--to",
            min=1,
            metavar="INT",
            help="Number of blocks of the result. With --qk-norm alone the depth stays as it is.",
            show_default=False,
            rich_help_panel=_GROWTH,
        ),
    ] = None,
    init: Annotated[
        str,
        typer.Option(
            "--init",
            help="Initialisation of new blocks: random weights that start as the identity (partial), copies (cyclic,"
            " replicate), the block before plus noise (progressive), or between two blocks (interpolate).",
            rich_help_panel=_GROWTH,
            **choices(*INITS),
        ),
    ] = "partial",
    drop_last: Annotated[
        Optional[int],
        typer.Option(
            min=0,
            metavar="INT",
            help="Number of last blocks that are left out before growing. Default: 2 for partial, else 0.",
            show_default=False,
            rich_help_panel=_GROWTH,
        ),
    ] = None,
    position: Annotated[
        str,
        typer.Option(
            metavar="end|interleave|AT",
            autocompletion=lambda: ["end", "interleave"],
            help="Place of the new blocks: after the others, spread between them, or all before kept block number AT"
            " (from 0). cyclic and replicate have their own places.",
            rich_help_panel=_GROWTH,
        ),
    ] = "end",
    zero_init: Annotated[
        Optional[bool],
        typer.Option(
            "--zero-init/--no-zero-init",
            help="Start new blocks and copies as the identity. Default: yes for partial, else no.",
            show_default=False,
            rich_help_panel=_GROWTH,
        ),
    ] = None,
    qk_norm: Annotated[
        bool,
        typer.Option(
            "--qk-norm",
            help="Insert SANA-1.5's QK norms, with weights of 1, into a SANA-1.0 checkpoint (paper, appendix C).",
            rich_help_panel=_GROWTH,
        ),
    ] = False,
    sigma: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="FLOAT",
            help="Standard deviation of the weights that partial draws.",
            rich_help_panel=_RANDOM,
        ),
    ] = SIGMA,
    sigma_depthwise: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="FLOAT",
            help="Standard deviation of the depth-wise convolutions that partial draws.",
            rich_help_panel=_RANDOM,
        ),
    ] = SIGMA_DEPTHWISE,
    sigma_noise: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="FLOAT",
            help="Standard deviation of the noise that progressive adds.",
            rich_help_panel=_RANDOM,
        ),
    ] = SIGMA_NOISE,
    seed: Seed = 0,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Run parent and child on random latents and show the largest difference. It is an error where they must agree.",
            rich_help_panel="Output",
        ),
    ] = False,
    dry_run: DryRun = False,
    pipeline: Pipeline = False,
    link: Link = False,
    shard_size: ShardSize = "5GB",
    components: ComponentsFrom = None,
    revision: Revision = None,
    output: Output = None,
    force: Force = False,
) -> None:
    """Make a checkpoint deeper and keep what it has learned (paper, section 2.2 and figure 11).

    The paper's growth, from base.st to base-d60.st:
    [bold]sanactl grow base.st --to 60[/bold]
    The plan, with sizes and memory, and no output:
    [bold]sanactl grow base.st --to 60 --dry-run[/bold]
    A deeper model that computes exactly what its parent computes:
    [bold]sanactl grow base.st --to 30 --drop-last 0 --verify[/bold]
    Copies that start as the identity:
    [bold]sanactl grow base.st --to 30 --init replicate --zero-init[/bold]
    QK norms for a SANA-1.0 checkpoint, at the same depth:
    [bold]sanactl grow sana-1.0.st --qk-norm[/bold]

    No model is loaded; bytes are copied from file to file. -o names a .st or
    .safetensors file, or a folder. sanactl convert writes a .pth.
    """
    import re

    from sanactl.cli.frame.streams import find_checkpoint
    from sanactl.cli.frame.surgery import Job, Writing, execute
    from sanactl.errors import UsageError
    from sanactl.surgery.grow import Growth, plan_grow, plan_qk_norm
    from sanactl.surgery.names import grown_name

    if to is None and not qk_norm:
        raise UsageError("grow needs --to, the number of blocks", hint="for example --to 60")
    parent, _ = find_checkpoint(checkpoint, revision=revision, native=True, components=components)
    if to is None:
        plan = plan_qk_norm(parent)
    else:
        growth = Growth(
            to=to,
            init=init,
            drop_last=drop_last,
            zero_init=zero_init,
            sigma=sigma,
            sigma_depthwise=sigma_depthwise,
            sigma_noise=sigma_noise,
            seed=seed,
            position=int(position) if re.fullmatch("[0-9]{1,9}", position) else position,
            qk_norm=qk_norm,
        )
        plan = plan_grow(parent, growth)
    notes = []
    if to is not None and (dropped := plan.lineage[-1]["arguments"]["drop_last"]):
        first, last = parent.num_blocks - dropped, parent.num_blocks - 1
        gone = f"block {last}" if dropped == 1 else f"blocks {first}-{last}"
        notes.append(f"leaving out {gone} and adding {to - first} new; --drop-last 0 keeps all")
    execute(
        "grow",
        parent,
        [Job(plan, grown_name(parent, to, pipeline=pipeline))],
        Writing(output, force, dry_run, shard_size, pipeline, link, verify),
        seed=seed,
        notes=notes,
    )
