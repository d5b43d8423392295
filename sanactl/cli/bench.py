"""`sanactl bench`: measurements of sanactl's speed on this machine, compared with other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sanactl.cli.bench_judge import judge
from sanactl.cli.bench_load import load
from sanactl.cli.bench_optim import optim
from sanactl.cli.bench_sample import sample
from sanactl.cli.bench_train import train
from sanactl.records.records import Record

app = typer.Typer(add_completion=False, rich_markup_mode="rich", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure speed and memory: surgery, optim, load, judge, sample, train.

    [bold]sanactl bench surgery --scale 0.1[/bold]
    [bold]sanactl bench optim --blocks 2[/bold]
    [bold]sanactl bench load[/bold]
    [bold]sanactl bench judge[/bold]
    [bold]sanactl bench sample[/bold]
    [bold]sanactl bench train[/bold]
    """


@app.command()
def surgery(
    scale: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=10,
            metavar="FLOAT",
            help="Scale of the numbers of blocks; 1 grows 20 to 60 and prunes 60 to 30.",
        ),
    ] = 0.2,
    rounds: Annotated[int, typer.Option(min=1, metavar="INT", help="Number of runs of each contender.")] = 3,
    folder: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Folder on the disk to be measured. It needs 40 GB x scale, and is left as it was.",
        ),
    ] = Path("."),
    diffusers: Annotated[
        bool,
        typer.Option(
            "--diffusers/--no-diffusers", help="Measure the usual diffusers script, too, or leave it out."
        ),
    ] = True,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Take very small blocks, to try the measurement.")
    ] = False,
) -> None:
    """Measure grow and prune against cp and the usual scripts, and the start-up of the program.

    A few minutes and 8 GB of disk:
    [bold]sanactl bench surgery --scale 0.2[/bold]
    The published shapes, with 40 GB of disk:
    [bold]sanactl bench surgery --scale 1 --folder /disk[/bold]

    The contenders take turns. A time ends when the output is on the disk, except
    in the rows "not flushed". A terminal shows a table; a pipe gets score
    records.
    """
    from sanactl.bench.surgery import bench_surgery
    from sanactl.bench.synthetic import SANA_1_6B, TINY
    from sanactl.cli.frame.run import Invocation
    from sanactl.errors import UsageError

    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", hint="name one on the disk to be measured")
    run = Invocation("bench surgery")
    with run.watching() as progress:
        config = TINY if tiny else SANA_1_6B
        rows = bench_surgery(folder.absolute(), scale, rounds, diffusers, config, progress)
        run.emit(rows, show=_show)


def _show(records: list[Record]) -> None:
    """A table a task and size, times of the first contender as 1."""
    from rich.text import Text

    from sanactl.cli.frame.console import PlainConsole, data, show_rows
    from sanactl.files.human import human_bytes

    console = PlainConsole()
    tables: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        tables.setdefault((record["task"], record.get("output_bytes", 0)), []).append(record)
    for (task, size), rows in tables.items():
        blocks = rows[0].get("blocks")
        what = f"{task}, {blocks[0]} to {blocks[1]} blocks, {human_bytes(size)}" if blocks else task
        console.print(data(what))
        keys = ("value", "seconds", "fastest", "cpu_seconds", "peak_mb", "gb_per_second")
        headings = ("contender", "times the first", "seconds", "fastest", "CPU seconds", "peak MB", "GB/s")
        cells: list[list[Text | str]] = [
            [data(row["contender"]), *("" if (n := row.get(key)) is None else f"{n:.3g}" for key in keys)]
            for row in rows
        ]
        show_rows(console, headings, cells)
        console.print()


app.command()(optim)
app.command()(load)
app.command()(train)
app.command()(judge)
app.command()(sample)
