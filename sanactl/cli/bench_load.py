"""`sanactl bench load`: the speed of sanactl while the machine has other work."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from sanactl.records.records import Record

__all__ = ["load"]


def load(
    task: Annotated[
        Optional[str],
        typer.Option(
            "--task",
            metavar="TASKS",
            help="Tasks to measure, separated by commas: finetune, sample, judge, importance. Default: all.",
            autocompletion=lambda: ["finetune", "sample", "judge", "importance"],
            show_default=False,
        ),
    ] = None,
    busy: Annotated[
        Optional[int],
        typer.Option(
            "--busy",
            min=0,
            metavar="INT",
            help="Number of processes that keep the cores busy. Default: one for each core.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=60, metavar="FLOAT", help="Shortest time of each phase, in seconds.")
    ] = 10.0,
    rounds: Annotated[
        int, typer.Option(min=1, metavar="INT", help="Number of idle and of busy phases of each task.")
    ] = 3,
) -> None:
    """Measure how fast commands are beside busy processes, and alone: the built-in base on this CPU.

    All tasks take four to eight minutes. Nothing else should run on the machine.
    [bold]sanactl bench load[/bold]
    [bold]sanactl bench load --task finetune --busy 4[/bold]

    It starts and ends the busy processes itself. A pipe gets score records.
    """
    from sanactl.bench.load import measure_load
    from sanactl.cli.frame.run import Invocation
    from sanactl.records.scores import new_score

    run = Invocation("bench load")
    names = None if task is None else [name.strip() for name in task.split(",") if name.strip()]
    rows = measure_load(names, busy=busy, seconds=seconds, rounds=rounds)
    records = (new_score("beside_other_work", row["ratio"], **row) for row in rows)
    run.emit(records, show=_show)


def _show(records: list[Record]) -> None:
    from rich.table import Table

    from sanactl.cli.frame.console import PlainConsole

    first = records[0]
    table = Table(
        title=f"{first['cores']} cores, {first['busy']} busy processes, load before: {first['load_before']}",
        caption="images a second",
        box=None,
    )
    table.add_column("task", no_wrap=True)
    for heading in ("idle", "loaded", "ratio"):
        table.add_column(heading, justify="right")
    for row in records:
        table.add_row(row["task"], f"{row['idle']:.1f}", f"{row['loaded']:.1f}", f"{row['ratio']:.2f}")
    PlainConsole().print(table)
