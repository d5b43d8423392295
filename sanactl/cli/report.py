"""`sanactl report`: one page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from sanactl.cli.options import Force, Output

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def report(
    records: Annotated[
        Optional[list[Path]],
        typer.Argument(
            help="JSONL files of records. Default: a pipe, else all that this folder's journal knows.",
            show_default=False,
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="Of the page.")] = "A run of sanactl",
    output: Output = None,
    force: Force = False,
) -> None:
    """Write one self-contained HTML page: scores, scaling, block importance, training, samples, lineage.

    [bold]sanactl report -o report.html[/bold]
    """
    from sanactl.cli.outputs import check_file
    from sanactl.cli.run import Invocation
    from sanactl.cli.streams import note, stdin_is_piped, stdin_records
    from sanactl.errors import UsageError
    from sanactl.io.records import KINDS, load_records
    from sanactl.stages.report import build_report

    run = Invocation("report")
    target = output or Path("report.html")
    check_file(target, "a page", force=force)
    if records:
        found = [r for file in records for r in load_records(file)]
    elif stdin_is_piped():
        found = list(stdin_records(KINDS))
    else:
        files: dict[str, None] = {}
        for entry in run.journal.runs():
            files.update(
                (o["path"], None) for o in entry["outputs"] if str(o.get("path", "")).endswith(".jsonl")
            )
        present = [run.journal.folder / f for f in files if (run.journal.folder / f).exists()]
        if not present:
            raise UsageError(
                "nothing to report on", hint="name files of records, or run in a folder with a journal"
            )
        note(f"using the {len(present)} files of records that this folder's journal knows")
        found = [r for file in present for r in load_records(file)]
    build_report(found, run.journal, target, title=title, force=force)
    note(f"wrote {target}; open it in a browser")
    run.finish((target, "report"))
