"""`sanactl doctor`: what this machine can do, and whether its results can be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Optional

import typer

from sanactl.bench.doctor.registry import CHECKS
from sanactl.cli.frame.options import MACHINE, choices
from sanactl.records.records import Record

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

_STYLES = {"ok": "green", "warning": "yellow", "wrong": "bold red"}


@app.command(short_help="Check this machine: versions, devices, disk, and known results.")
def doctor(
    only: Annotated[
        Optional[list[str]],
        typer.Option(
            "--only",
            help="Check to make. Give the option again for each further check. Default: all of them.",
            show_default=False,
            **choices(*CHECKS),
        ),
    ] = None,
    device: Annotated[
        Optional[str],
        typer.Option(
            "--device",
            metavar="NAME",
            help="Device to check: cpu, cuda, cuda:1, mps. Default: all devices; models run on a GPU if there is one, "
            "else on the CPU.",
            show_default=False,
            rich_help_panel=MACHINE,
            autocompletion=lambda: ["cpu", "cuda", "mps"],
        ),
    ] = None,
) -> None:
    """Check what this machine can do, and whether its results can be trusted.

    [bold]sanactl doctor[/bold]
    [bold]sanactl doctor --only dtypes --only sample --device cpu[/bold]

    Each row is ok, a warning or wrong. A terminal shows a table; a pipe gets
    score records. Exit code 1 means that something is wrong: a package does not
    fit, or a computation gives other results than it has to.
    """
    from sanactl.bench.doctor.finding import Place
    from sanactl.bench.doctor.run import chosen_checks, examine
    from sanactl.cli.frame.run import Invocation
    from sanactl.errors import SanactlError

    run, faults = Invocation("doctor"), list[str]()

    def watched(records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            if record["state"] == "wrong":
                faults.append(record["check"])
            yield record

    with run.watching() as progress:
        run.emit(watched(examine(Place(device), chosen_checks(only or ()), progress)), show=_show)
    if faults:
        names = ", ".join(dict.fromkeys(faults))
        raise SanactlError(f"results of this machine cannot be trusted: {names}", hint="the rows say why")


def _show(records: list[Record]) -> None:
    from sanactl.cli.frame.console import PlainConsole, data, show_rows

    rows = [
        (data(r["check"]), data(r["of"]), data(r["state"], _STYLES[r["state"]]), data(r["says"]))
        for r in records
    ]
    show_rows(PlainConsole(), ("check", "of", "state", "what was found"), rows)
