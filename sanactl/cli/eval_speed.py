"""`sanactl eval speed`: throughput, latency and memory of a checkpoint."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from sanactl.cli.frame.options import (
    MACHINE,
    CheckpointArgument,
    ComponentsFrom,
    Device,
    Dtype,
    Force,
    Output,
    Revision,
    choices,
)
from sanactl.cli.frame.sampling_options import GuidanceScale, Height, Steps, Width

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(name="speed", short_help="Images a second of a checkpoint, beside diffusers.")
def speed(
    checkpoint: CheckpointArgument = None,
    random: Annotated[
        Optional[str],
        typer.Option(
            "--random",
            help="Published shape to measure with random weights, in place of a checkpoint; tiny is for a trial. "
            "Default: none.",
            show_default=False,
            **choices("SANA1.5_4.8B", "SANA1.5_1.6B", "SANA_0.6B", "tiny"),
        ),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size",
            "-b",
            min=1,
            max=1024,
            metavar="INT",
            help="Number of images that are drawn at once for the throughput.",
            rich_help_panel=MACHINE,
        ),
    ] = 10,
    rounds: Annotated[
        int,
        typer.Option(
            min=1, max=1000, metavar="INT", help="Number of times that each program draws each batch."
        ),
    ] = 3,
    diffusers: Annotated[
        bool, typer.Option("--diffusers/--no-diffusers", help="Also measure diffusers' pipeline.")
    ] = True,
    steps: Steps = None,
    guidance: GuidanceScale = None,
    height: Height = None,
    width: Width = None,
    device: Device = None,
    dtype: Dtype = None,
    components: ComponentsFrom = None,
    revision: Revision = None,
    output: Output = None,
    force: Force = False,
) -> None:
    """Measure throughput and latency, as in the paper's table 1, beside diffusers.

    [bold]sanactl eval speed base.st[/bold]
    Without weights, in a published shape:
    [bold]sanactl eval speed --random SANA1.5_4.8B --dtype bf16[/bold]

    Latency is that of one image, throughput that of a batch, from the text to
    pixels. A score record of each program goes to stdout and to speed.jsonl.
    """
    from sanactl.bench.speed import RANDOM, Rounds, measure_speed, of_checkpoint, of_random
    from sanactl.cli.frame.render_scores import show_scores
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.streams import find_checkpoint
    from sanactl.errors import UsageError
    from sanactl.model.conditioning import pick_device, sampling_settings
    from sanactl.model.loading import resolve_dtype
    from sanactl.model.processes import is_one_of_several
    from sanactl.model.sampling_settings import published_settings

    if is_one_of_several():
        # Processes beside it would share the device, and the speed would be theirs, too.
        raise UsageError("eval speed measures one process", hint="start it without a launcher")
    given = {"steps": steps, "guidance_scale": guidance, "height": height, "width": width}
    if random is not None and (checkpoint or components or revision):
        raise UsageError("--random needs no checkpoint", hint="leave out the checkpoint, or --random")
    if random is not None and random not in RANDOM:
        raise UsageError(f"--random {random}: no such shape", hint=f"there are: {', '.join(RANDOM)}")
    run = Invocation("eval speed")
    target = run.records_file(output, "speed", force=force)
    place = pick_device(device)
    kind = resolve_dtype(dtype, place)
    if random is not None:
        settings = published_settings(random, RANDOM[random].step, **RANDOM[random].defaults | _set(given))
        run.progress.start(None, f"making random weights of {random}")
        measured = of_random(random, settings, place, kind)
    else:
        found, _ = find_checkpoint(checkpoint, revision=revision, native=True, components=components)
        run.uses(found)
        settings = sampling_settings(found, **given)
        run.progress.start(None, f"loading {found.name}")
        measured = of_checkpoint(found, settings, place, kind)
    run.progress.close()
    how = Rounds(batch_size, rounds, diffusers)
    scores = measure_speed(measured, how, device=place, progress=run.progress)
    run.emit(run.tee(scores, target, force=force), show=show_scores)
    run.finish((target, "score"))


def _set(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
