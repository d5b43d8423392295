"""`sanactl make-shapes`: the parts of the built-in world that are neither checkpoint nor judge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sanactl.cli.frame.options import Force, Seed

app = typer.Typer(add_completion=False, rich_markup_mode="rich", no_args_is_help=True)

World = Annotated[Path, typer.Option("--world", metavar="FOLDER", help="Folder of the world's parts.")]


@app.callback()
def parts() -> None:
    """Train the parts of the built-in world, as recipes/make-shapes.sh does."""


@app.command()
def vae(
    world: World = Path("world"),
    steps: Annotated[int, typer.Option(min=1, metavar="INT", help="Number of training steps.")] = 8000,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Train the autoencoder (diffusers' AutoencoderDC, 64 pixels to 8 x 8 latents) into WORLD/vae."""
    from sanactl.cli.frame.render_scores import show_scores
    from sanactl.cli.frame.run import Invocation
    from sanactl.records.scores import new_score
    from sanactl.world.train_vae import train_vae

    run = Invocation("make-shapes vae", seed=seed)
    world.mkdir(parents=True, exist_ok=True)
    scores = train_vae(world / "vae", steps=steps, seed=seed, force=force, progress=run.progress)
    run.emit(
        (new_score(f"vae_{k}", v) for k, v in scores.items()),
        show=show_scores,
        take_all=True,
    )
    run.finish((world / "vae", "vae"))


@app.command()
def text(
    world: World = Path("world"),
    steps: Annotated[int, typer.Option(min=1, metavar="INT", help="Number of training steps.")] = 700,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Train the text encoder and tokenizer (a small Gemma 2) into WORLD, and write the scheduler beside them."""
    from sanactl.cli.frame.render_scores import show_scores
    from sanactl.cli.frame.run import Invocation
    from sanactl.errors import OutputExistsError
    from sanactl.records.scores import new_score
    from sanactl.world.pack import write_scheduler
    from sanactl.world.train_text_encoder import train_text_encoder

    run = Invocation("make-shapes text", seed=seed)
    if (world / "text_encoder").exists() and not force:
        raise OutputExistsError(f"{world / 'text_encoder'} exists already", hint="--force overwrites it")
    world.mkdir(parents=True, exist_ok=True)
    scores = train_text_encoder(world, steps=steps, seed=seed, progress=run.progress)
    write_scheduler(world / "scheduler")
    run.emit(
        (new_score(f"text_{k}", v) for k, v in scores.items()),
        show=show_scores,
        take_all=True,
    )
    run.finish((world / "text_encoder", "text_encoder"))


@app.command()
def pack(
    world: World = Path("world"),
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder to write to.")
    ] = Path("assets"),
) -> None:
    """Write WORLD's parts in fp16 as they ship with sanactl."""
    from sanactl.cli.frame.run import Invocation
    from sanactl.world.pack import pack_world

    run = Invocation("make-shapes pack")
    pack_world(world, output)
    run.finish((output, "world"))
