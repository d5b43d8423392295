"""`sanactl init`: a first checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from sanactl.cli.frame.options import Force, Output, Seed

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def init(
    what: Annotated[
        str,
        typer.Argument(
            metavar="NAME|CHECKPOINT",
            help="What to write: shapes (the built-in base), shapes-grown (grown to 30 blocks and trained), or with "
            "--scratch a checkpoint whose config is taken.",
            autocompletion=lambda: ["shapes", "shapes-grown"],
        ),
    ] = "shapes",
    output: Output = None,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="Write random weights, for training from scratch.")
    ] = False,
    blocks: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            metavar="INT",
            help="Number of blocks, with --scratch. Default: that of the source.",
            show_default=False,
        ),
    ] = None,
    world: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FOLDER",
            help="With --scratch, a folder with text_encoder, tokenizer, vae and scheduler. Default: the built-in ones.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Write a first checkpoint: the built-in base, or random weights.

    The base of the built-in world, of 10 blocks:
    [bold]sanactl init shapes -o base.st[/bold]
    The same, grown to 30 blocks and trained:
    [bold]sanactl init shapes-grown -o grown.st[/bold]
    Random weights in the shape of another checkpoint:
    [bold]sanactl init base.st --scratch -o scratch.st[/bold]
    """
    from functools import partial

    from sanactl.checkpoint.builtin import asset
    from sanactl.checkpoint.open import open_checkpoint
    from sanactl.cli.frame.render import show_checkpoints
    from sanactl.cli.frame.run import Invocation, checkpoint_record
    from sanactl.errors import UsageError
    from sanactl.world.init import init_like, init_scratch, init_shapes

    if output is not None:
        _check_name(output)
    run = Invocation("init", seed=seed)
    builtin = what in ("shapes", "shapes-grown")
    if builtin and not scratch:
        if blocks or world:
            raise UsageError("--blocks and --world go with --scratch")
        grown = what == "shapes-grown"
        target = output or Path("grown.st" if grown else "base.st")
        make = partial(init_shapes, grown=grown)
        run.key(digest=open_checkpoint(asset("grown.st" if grown else "base.st")).digest)
    elif builtin:
        target = output or Path("scratch.st")
        make = partial(init_scratch, blocks=blocks, world=world, seed=seed)
        run.key(scratch=what, blocks=blocks, world=world, seed=seed)
    elif not scratch:
        if os.path.lexists(what):
            raise UsageError(
                f"{what} is a checkpoint already", hint="--scratch makes a random one of its shape"
            )
        raise UsageError(
            f"{what} is neither a built-in checkpoint nor a file here",
            hint="init writes shapes or shapes-grown; with --scratch also the shape of a checkpoint that is there",
        )
    else:
        like = open_checkpoint(what)
        run.uses(like)
        target = output or Path(f"{like.name}-scratch.st")
        make = partial(init_like, like, blocks=blocks, seed=seed)
        run.key(digest=like.digest, blocks=blocks, seed=seed)
    if not run.made_before(target, force=force):
        make(target=target, force=force)
    made = open_checkpoint(target)
    run.emit([checkpoint_record(made)], show=show_checkpoints, take_all=True)
    run.finish((target, "checkpoint", made.digest))


def _check_name(output: Path) -> None:
    """Refuses a name that would promise another format than the one file that is written."""
    from sanactl.checkpoint.target import target_kind
    from sanactl.errors import UsageError

    try:
        kind = target_kind(output)
    except UsageError:
        kind = "other"
    if kind != "file":
        raise UsageError(
            f"init writes a .st or .safetensors file, not {output}",
            hint="write a .st, and sanactl convert makes the other formats of it",
        )
