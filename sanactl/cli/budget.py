"""`sanactl budget`: the best checkpoint, steps and images for a budget of images, FLOPs or seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sanactl.cli.frame.options import Force, Output

if TYPE_CHECKING:
    from sanactl.cli.frame.run import Invocation
    from sanactl.records.records import Record

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


def _amount(name: str, what: str) -> typer.models.OptionInfo:
    info: typer.models.OptionInfo = typer.Option(f"--{name}", metavar="NUMBER", help=what, show_default=False)
    return info


@app.command()
def budget(
    records: Annotated[
        Optional[list[Path]],
        typer.Argument(
            help="JSONL files that eval geneval wrote, of images that judge --all passed on. "
            "Default: the pipe's, else those of this folder's journal.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        Optional[str], _amount("images", "Images of each prompt, such as 16. Default: another budget.")
    ] = None,
    flops: Annotated[
        Optional[str],
        _amount("flops", "FLOPs for each prompt, such as 2.5e12, 300G or 2.5T. Default: another budget."),
    ] = None,
    seconds: Annotated[
        Optional[str],
        _amount("seconds", "Seconds for each prompt, such as 20, 1.5min or 2h. Default: another budget."),
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, metavar="INT", help="Number of images to keep of each prompt.")
    ] = 1,
    round: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            metavar="INT",
            help="Also consider drawing so many images at a time until the judge says yes. Default: not considered.",
            show_default=False,
        ),
    ] = None,
    speed: Annotated[
        Optional[str],
        _amount(
            "speed",
            "FLOPs a second of a machine, such as 200T, to turn FLOPs into seconds. Default: the seconds of sample and "
            "judge in this folder's journal.",
        ),
    ] = None,
    output: Output = None,
    force: Force = False,
) -> None:
    """Choose checkpoint, steps and number of images for a budget (paper, section 2.5).

    [bold]sanactl budget scaling*.jsonl --flops 100G[/bold]
    [bold]sanactl budget scaling*.jsonl --seconds 2[/bold]
    [bold]sanactl budget scaling*.jsonl --images 16 --top 4[/bold]

    Sampling, decoding and judging are counted. The Pareto front goes to stdout
    and to budget.jsonl: a score record for each choice that no other beats at
    its cost. The best within the budget is marked as chosen.
    """
    from sanactl.cli.frame.render_budget import said_of_choice, show_front
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.terminal import note
    from sanactl.scoring.budget.amounts import one_budget, read_amount
    from sanactl.scoring.budget.buy import buy

    axis, amount = one_budget(images, flops, seconds)
    rate = None if speed is None else read_amount(speed, "--speed")
    run = Invocation("budget")
    target = run.records_file(output, "budget", force=force)
    stream = _read(run, list(records or ()))
    front = buy(
        run.counted(stream, "scored images or scores"),
        axis,
        amount,
        top=top,
        round=round,
        journal=run.journal,
        speed=rate,
        tell=note,
    )
    note(said_of_choice(front))
    run.emit(run.tee(iter(front), target, force=force), show=show_front, take_all=True)
    run.finish((target, "score"))


def _read(run: Invocation, files: list[Path]) -> Iterator[Record]:
    """The records of the files, else of the pipe, else of what `eval geneval` wrote in this folder."""
    import itertools

    from sanactl.cli.frame.stdin import stdin_is_piped, stdin_records
    from sanactl.cli.frame.terminal import note
    from sanactl.errors import UsageError
    from sanactl.records.records import stream_records

    kinds, journal = ("image", "score"), run.journal
    if (not files and stdin_is_piped()) or [*map(str, files)] == ["-"]:
        run.uses("stdin")
        return stdin_records(kinds)
    if not files:
        scored = [e for e in journal.runs() if e.get("command") == "eval geneval"]
        paths = dict.fromkeys(journal.folder / o["path"] for e in scored for o in e["outputs"])
        files = [Path(journal.relative(p)) for p in paths if p.is_file()]
        if not files:
            raise UsageError(
                "no scores: name files that eval geneval wrote, or pipe them in",
                hint="sanactl sample -n 16 | sanactl judge --all | sanactl eval geneval -o scaling.jsonl",
            )
        note(f"using {', '.join(map(str, files))} of this folder's journal")
    for file in files:
        run.uses(file)
    return itertools.chain.from_iterable([stream_records(file, kinds=kinds) for file in files])
