"""`sanactl report`: one page about a run."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sanactl.cli.frame.options import Force, Output

if TYPE_CHECKING:
    from sanactl.records.journal import Journal

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def report(
    records: Annotated[
        Optional[list[Path]],
        typer.Argument(
            help="JSONL files of records. Default: the pipe's, else all files of records in this folder's journal.",
            show_default=False,
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "A run of sanactl",
    output: Output = None,
    force: Force = False,
) -> None:
    """Write one self-contained HTML page: scores, scaling, block importance, training, samples, lineage.

    [bold]sanactl report -o report.html[/bold]
    """
    from sanactl.cli.frame.outputs import check_file
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.streams import note, stdin_is_piped, stdin_records
    from sanactl.records.records import KINDS, stream_records
    from sanactl.report import build_report

    run = Invocation("report")
    target = output or Path("report.html")
    check_file(target, "a page", force=force)
    files = list(records or ())
    if (not files and stdin_is_piped()) or [*map(str, files)] == ["-"]:
        found = stdin_records(KINDS)
    else:
        files = files or _remembered(run.journal)
        found = itertools.chain.from_iterable(map(stream_records, files))
    build_report(found, run.journal, target, title=title, force=force)
    note(f"wrote {target}; open it in a browser")
    run.finish((target, "report"))


def _remembered(journal: Journal) -> list[Path]:
    """The files of records that a folder's journal knows and that are there."""
    from sanactl.cli.frame.streams import note
    from sanactl.errors import UsageError

    names = dict.fromkeys(
        o["path"] for run in journal.runs() for o in run["outputs"] if o["path"].endswith(".jsonl")
    )
    present = [journal.folder / name for name in names if os.path.isfile(journal.folder / name)]
    if not present:
        raise UsageError(
            "nothing to report on", hint="name files of records, or run in a folder with a journal"
        )
    note(f"using the {len(present)} files of records that this folder's journal knows")
    return present
