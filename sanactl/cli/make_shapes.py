"""`sanactl make-shapes`: the parts of the built-in world that are neither checkpoint nor judge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sanactl.cli.frame.options import Force, RecordsArgument, Seed

if TYPE_CHECKING:
    from sanactl.cli.frame.run import Invocation
    from sanactl.records.records import Record

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
def languages(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder of components to write.")
    ] = Path("languages"),
    components: Annotated[
        str,
        typer.Option(
            "--components", metavar="FOLDER", help="Folder of the text encoder and other parts to start from."
        ),
    ] = "builtin:shapes",
    steps: Annotated[int, typer.Option(min=1, metavar="INT", help="Number of training steps.")] = 200,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Teach the text encoder Chinese, mixed and emoji prompts, and write it with the other components into a folder.

    English prompts keep their features. The scores say which share of the
    evaluation prompts is nearest to an English one with the same meaning.
    """
    from sanactl.cli.frame.run import Invocation
    from sanactl.world.languages import learn_languages

    run = Invocation("make-shapes languages", seed=seed)
    figures = learn_languages(
        output, components=components, steps=steps, seed=seed, force=force, progress=run.progress
    )
    _emit(run, {f"language_{form}": value for form, value in figures.items()})
    run.finish((output, "components"))


Rendered = Annotated[
    bool,
    typer.Option("--rendered", help="Train only on rendered pictures with faults, without image records."),
]


@app.command()
def detector(
    records: RecordsArgument = None,
    rendered: Rendered = False,
    start: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FOLDER",
            help="Folder of a detector to start from. Default: random weights.",
            exists=True,
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, metavar="INT", help="Number of training steps.")] = 4000,
    pool_size: Annotated[
        int, typer.Option(min=1, metavar="INT", help="Number of rendered pictures to train on.")
    ] = 2000,
    resume: Annotated[
        bool, typer.Option("--resume/--restart", help="Continue an interrupted run, or start it again.")
    ] = True,
    world: World = Path("world"),
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Train a tiny Mask2Former on samples and rendered pictures, to find what the built-in detector finds, into WORLD/detector."""
    from sanactl.cli.frame.run import Invocation
    from sanactl.world.detector_settings import DetectorTraining
    from sanactl.world.train_detector import train_detector

    run = Invocation("make-shapes detector", seed=seed)
    settings = DetectorTraining(start=start, steps=steps, pool_size=pool_size, seed=seed)
    world.mkdir(parents=True, exist_ok=True)
    target = world / "detector"
    images = _images(run, records, rendered, target, force)
    figures = train_detector(images, target, settings, restart=not resume, force=force, progress=run.progress)
    _emit(run, {f"detector_{name}": value for name, value in figures.items()})
    run.finish((target, "detector"))


@app.command()
def clip(
    records: RecordsArgument = None,
    rendered: Rendered = False,
    steps: Annotated[int, typer.Option(min=1, metavar="INT", help="Number of training steps.")] = 600,
    pool_size: Annotated[
        int, typer.Option(min=1, metavar="INT", help="Number of rendered pictures to train on.")
    ] = 2000,
    resume: Annotated[
        bool, typer.Option("--resume/--restart", help="Continue an interrupted run, or start it again.")
    ] = True,
    world: World = Path("world"),
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Train a tiny CLIP to tell the colours of objects as the built-in detector does, into WORLD/clip."""
    from sanactl.cli.frame.run import Invocation
    from sanactl.world.train_clip import train_clip

    run = Invocation("make-shapes clip", seed=seed)
    world.mkdir(parents=True, exist_ok=True)
    target = world / "clip"
    images = _images(run, records, rendered, target, force)
    figures = train_clip(
        images,
        target,
        steps=steps,
        pool_size=pool_size,
        seed=seed,
        restart=not resume,
        force=force,
        progress=run.progress,
    )
    _emit(run, {f"clip_{name}": value for name, value in figures.items()})
    run.finish((target, "clip"))


def _images(
    run: Invocation, records: str | None, rendered: bool, target: Path, force: bool
) -> list[Record] | None:
    """The image records to train on; None with --rendered."""
    from sanactl.cli.frame.streams import find_records
    from sanactl.errors import UsageError
    from sanactl.files.atomic import check_target

    if rendered and records is not None:
        raise UsageError("--rendered takes no records")
    check_target(target, force)
    if rendered:
        return None
    hint = "sanactl prompts shapes --split train | sanactl sample --prompts -"
    stream, source = find_records(records, ("image",), what="images to train on", hint=hint)
    run.uses(source)
    return list(run.counted(stream, "images to train on", source=source))


def _emit(run: Invocation, figures: dict[str, float]) -> None:
    from sanactl.cli.frame.render_scores import show_scores
    from sanactl.records.scores import new_score

    run.emit((new_score(name, value) for name, value in figures.items()), show=show_scores, take_all=True)


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
