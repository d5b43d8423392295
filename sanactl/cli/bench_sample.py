"""`sanactl bench sample`: images of one prompt, sanactl beside diffusers' SanaPipeline."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from sanactl.cli.frame.options import Device, Dtype
from sanactl.records.records import Record

__all__ = ["sample"]


def sample(
    model: Annotated[
        Optional[str],
        typer.Option(
            "--model",
            metavar="MODELS",
            help="Models to draw with, separated by commas: mid (random weights, width 512, 8 blocks, at 512 pixels), base "
            "(the built-in base), tiny (random). Default: mid,base.",
            autocompletion=lambda: ["mid", "base", "tiny"],
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        int, typer.Option("--images", "-n", min=1, metavar="INT", help="Number of images in a round.")
    ] = 32,
    batch_size: Annotated[
        int,
        typer.Option("--batch-size", "-b", min=1, metavar="INT", help="Number of images in a batch of both."),
    ] = 8,
    steps: Annotated[
        int, typer.Option("--steps", min=1, max=1000, metavar="INT", help="Number of sampling steps.")
    ] = 20,
    rounds: Annotated[int, typer.Option(min=1, metavar="INT", help="Number of rounds.")] = 3,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Measure the time of many images of one prompt against diffusers' SanaPipeline.

    About 35 minutes on two cores of a CPU; a line says how long after the first
    turn:
    [bold]sanactl bench sample[/bold]
    The built-in base alone, in about a minute:
    [bold]sanactl bench sample --model base[/bold]
    A short look at the other model:
    [bold]sanactl bench sample --model mid -n 8 --steps 5 --rounds 1[/bold]

    Both programs draw the same images with the same modules, in turns; the ratio
    is the median over rounds. A second table says where the time of one batch
    goes. A terminal shows tables; a pipe gets score records: value and
    ratio_range (sanactl's time / SanaPipeline's), cpu_ratio, seconds and
    their_seconds of a round, apart (mean difference of the images, in 255ths).
    """
    from sanactl.bench.sampling_ratio import MODELS, Turns, measure_ratio
    from sanactl.cli.frame.run import Invocation
    from sanactl.errors import UsageError
    from sanactl.model.conditioning import pick_device
    from sanactl.model.loading import resolve_dtype

    names = ["mid", "base"] if model is None else [name.strip() for name in model.split(",")]
    if unknown := [name for name in names if name not in MODELS]:
        raise UsageError(f"--model {unknown[0][:60]!r}: no such model", hint=f"there are {', '.join(MODELS)}")
    if images % batch_size:
        raise UsageError(f"--images {images} is not a multiple of the batch, {batch_size}")
    where = pick_device(device)
    run = Invocation("bench sample")
    with run.watching() as progress:
        rows = measure_ratio(
            names,
            Turns(images, batch_size, steps, rounds),
            device=where,
            dtype=resolve_dtype(dtype, where),
            progress=progress,
        )
        run.emit(rows, show=_show)


def _show(records: list[Record]) -> None:
    from sanactl.cli.frame.console import PlainConsole, data, show_rows

    console = PlainConsole()
    for r in records:
        console.print(
            data(
                f"{r['model']}, {r['images']} images of {r['width']} x {r['height']} in batches of {r['batch']}, {r['steps']} steps"
            )
        )
        low, high = r["ratio_range"]
        cpu = "" if r["cpu_ratio"] is None else f"; of processor time {r['cpu_ratio']:.2f}"
        console.print(
            data(
                f"sanactl {r['seconds']:.3g} s, {r['program']} {r['their_seconds']:.3g} s: {r['value']:.2f} ({low:.2f} to {high:.2f}){cpu}"
            )
        )
        rows: list[list[Any]] = [
            [data(part), f"{own:.3g}", f"{r['their_parts'][part]:.3g}"] for part, own in r["parts"].items()
        ]
        show_rows(console, ["seconds of a batch", "sanactl", r["program"]], rows)
        console.print()
