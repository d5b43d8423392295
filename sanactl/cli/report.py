"""`sanactl report`: one page about a run."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sanactl.cli.frame.options import Force, Output

if TYPE_CHECKING:
    from sanactl.cli.frame.run import Invocation
    from sanactl.records.journal import Journal
    from sanactl.records.records import Record

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def report(
    records: Annotated[
        Optional[list[Path]],
        typer.Argument(
            help="JSONL files of records; with --card also the pipeline's folder. "
            "Default: the pipe's, else all files of records in this folder's journal.",
            show_default=False,
        ),
    ] = None,
    title: Annotated[
        Optional[str],
        typer.Option(
            help="Title of the page, or the model's name on a card. Default: A run of sanactl; the folder's name.",
            show_default=False,
        ),
    ] = None,
    card: Annotated[
        bool,
        typer.Option(
            "--card",
            help="Write a model card for the Hub, README.md with images/, into a pipeline's folder in place of a page.",
        ),
    ] = False,
    license_name: Annotated[
        Optional[str],
        typer.Option(
            "--license",
            metavar="NAME",
            help="License on the card, as the Hub writes it. "
            "Default: apache-2.0 for the built-in world's models, else other.",
            show_default=False,
        ),
    ] = None,
    base_model: Annotated[
        Optional[str],
        typer.Option(
            metavar="HUB-ID",
            help="Base model on the card. Default: the Hub id that the checkpoint came from, as far as it is known.",
            show_default=False,
        ),
    ] = None,
    output: Output = None,
    force: Force = False,
) -> None:
    """Write one self-contained HTML page about a run, or a model card.

    The page has images, scores, block importance, training and lineage:
    [bold]sanactl report -o report.html[/bold]

    A model card goes into a folder that convert --pipeline wrote:
    [bold]sanactl report --card pipeline/[/bold]
    """
    from sanactl.cli.frame.outputs import check_file
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.terminal import note
    from sanactl.errors import UsageError
    from sanactl.report import build_report

    run = Invocation("report")
    if card:
        target = _write_card(run, list(records or ()), output, force, (title, license_name, base_model))
        note(f"wrote {target}")
    elif license_name or base_model:
        raise UsageError("--license and --base-model are of a model card", hint="add --card")
    else:
        target = output or Path("report.html")
        check_file(target, "a page", force=force)
        found = _read(run.journal, list(records or ()))
        build_report(found, run.journal, target, title=title or "A run of sanactl", force=force)
        note(f"wrote {target}; open it in a browser")
    run.finish((target, "report"))


def _read(journal: Journal, files: list[Path], *, needed: bool = True) -> Iterator[Record]:
    """The records of the files, else of the pipe, else of the files that the journal knows."""
    from sanactl.cli.frame.stdin import stdin_is_piped, stdin_records
    from sanactl.records.records import KINDS, stream_records

    if (not files and stdin_is_piped()) or [*map(str, files)] == ["-"]:
        return stdin_records(KINDS)
    return itertools.chain.from_iterable(map(stream_records, files or _remembered(journal, needed=needed)))


def _write_card(
    run: Invocation,
    named: list[Path],
    output: Path | None,
    force: bool,
    said: tuple[str | None, str | None, str | None],
) -> Path:
    """Writes a model card; `said` are title, license and base model."""
    from sanactl.cli.frame.terminal import note
    from sanactl.errors import InputError, UsageError
    from sanactl.report.card import CardSettings, write_card

    folders = [path for path in named if path.is_dir()]
    if output is not None:
        folder = output.parent if output.name == "README.md" else output
        if not folder.is_dir():
            raise InputError(
                f"-o {output}: no such folder",
                hint="with --card, -o names the pipeline's folder, and the card is its README.md",
            )
        folders.append(folder)
    if not folders:
        newest = [
            o for r in run.journal.newest_first() for o in r["outputs"] if o.get("kind") == "checkpoint"
        ]
        folders = [run.journal.folder / o["path"] for o in newest]
        folders = [path for path in folders if path.is_dir()][:1]
        for path in folders:
            note(f"using {run.journal.relative(path)}")
    if len(set(folders)) != 1:
        what = "no folder" if not folders else "more than one folder"
        raise UsageError(
            f"{what} to write a card into", hint="sanactl convert --pipeline -o FOLDER writes one"
        )
    files = [path for path in named if path not in folders]
    found = _read(run.journal, files, needed=False)
    target, lacks = write_card(found, run.journal, folders[0], CardSettings(*said), force=force)
    for sentence in lacks:
        note(sentence)
    return target


def _remembered(journal: Journal, *, needed: bool) -> list[Path]:
    """The files of records that a folder's journal knows and that are there; there must be some where they are needed."""
    from sanactl.cli.frame.terminal import note
    from sanactl.errors import UsageError

    names = dict.fromkeys(
        o["path"] for run in journal.runs() for o in run["outputs"] if o["path"].endswith(".jsonl")
    )
    present = [journal.folder / name for name in names if os.path.isfile(journal.folder / name)]
    if not present and needed:
        raise UsageError(
            "nothing to report on", hint="name files of records, or run in a folder with a journal"
        )
    if present:
        files = "file" if len(present) == 1 else f"{len(present)} files"
        note(f"using the {files} of records that this folder's journal knows")
    else:
        note("this folder's journal knows no files of records")
    return present
