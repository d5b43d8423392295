"""`sanactl bench judge`: images a second of a vision-language judge."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sanactl.cli.frame.options import Device, Dtype
from sanactl.judging.registry import DEFAULT
from sanactl.records.records import Record

__all__ = ["judge"]


def judge(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="JUDGE",
            help="The judge: the folder or Hub id of a vision-language model.",
        ),
    ] = DEFAULT,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "-b", min=2, metavar="INT", help="Number of images in a batch.")
    ] = 16,
    images: Annotated[
        int, typer.Option("--images", min=1, metavar="INT", help="Number of images in a round.")
    ] = 64,
    rounds: Annotated[int, typer.Option(min=1, metavar="INT", help="Number of rounds.")] = 5,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Measure a judge in batches against one by one, and with its text computed once.

    The built-in judge, in about half a minute:
    [bold]sanactl bench judge[/bold]
    Another model:
    [bold]sanactl bench judge --model Qwen/Qwen3-VL-8B-Instruct --images 32[/bold]

    The ways take turns. A terminal shows a table; a pipe gets score records. The
    text before the image is computed once only where the model allows it and it
    has 8 tokens or more; else there are no rows for it.
    """
    from sanactl.bench.judging import measure_judging
    from sanactl.cli.frame.run import Invocation
    from sanactl.records.scores import new_score

    run = Invocation("bench judge")
    given: dict[str, Any] = {"device": device, "dtype": dtype}
    with run.watching() as progress:
        rows = measure_judging(
            model, batch_size=batch_size, images=images, rounds=rounds, options=given, progress=progress
        )
    run.emit((new_score("judging_speed", row.pop("value"), **row) for row in rows), show=_show)


def _show(records: list[Record]) -> None:
    from sanactl.cli.frame.console import PlainConsole, data, show_rows

    first = records[0]
    console = PlainConsole()
    console.print(data(f"{first['judge']}, {first['prefix_tokens']} tokens shared"))
    rows: list[list[Any]] = [
        [data(r["way"]), f"{r['images_per_second']:.3g}", f"{r['value']:.3g}"] for r in records
    ]
    show_rows(console, ["way", "images/s", "times the first"], rows)
