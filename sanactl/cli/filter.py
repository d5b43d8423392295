"""`sanactl filter`: passes on some of the images."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Optional

import typer

from sanactl.cli.frame.options import Force, Output, RecordsArgument, Sheet

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(name="filter")
def filter_(
    records: RecordsArgument = None,
    correct: Annotated[
        bool, typer.Option("--correct", help="Pass on only images that eval geneval found correct.")
    ] = False,
    where: Annotated[
        Optional[list[str]],
        typer.Option(
            "--where",
            "-w",
            metavar="CONDITION",
            help="Pass on only images whose fields meet a condition, such as 'judge_score > 0.8'. Give the option again "
            "for each further condition. Default: no condition.",
            show_default=False,
        ),
    ] = None,
    per_prompt: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            metavar="INT",
            help="Number of images to pass on for each prompt, in the order they come. Default: all.",
            show_default=False,
        ),
    ] = None,
    top: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            metavar="INT",
            help="Number of images to pass on for each prompt, the best by --by. Default: all.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        str, typer.Option(metavar="FIELD", help="Field that --top compares; a larger value is better.")
    ] = "judge_score",
    output: Output = None,
    sheet: Sheet = None,
    force: Force = False,
) -> None:
    """Pass on the image records that satisfy all conditions, unchanged.

    [bold]sanactl filter geneval.jsonl --correct --per-prompt 10[/bold]
    [bold]sanactl filter judge.jsonl --where 'judge_score > 0.8'[/bold]
    Train on the images that were found correct:
    [bold]sanactl filter geneval.jsonl --correct | sanactl finetune base.st -d -[/bold]

    Records go to stdout and to filter.jsonl.
    """
    from sanactl.cli.frame.render import show_images
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.streams import find_records
    from sanactl.cli.frame.terminal import note
    from sanactl.errors import UsageError
    from sanactl.scoring.filter import Condition, filter_records

    if not (correct or where or per_prompt or top):
        raise UsageError("no condition is given", hint="give --correct, --where, --per-prompt or --top")
    conditions = [Condition(text) for text in where or ()]
    run = Invocation("filter")
    run.sheet(sheet, force=force)
    target = run.records_file(output, "filter", force=force)
    stream, source = find_records(
        records,
        ("image",),
        what="images to filter",
        hint="sanactl eval geneval | sanactl filter --correct",
        checked=False,
    )
    run.uses(source)
    counts: Counter[str] = Counter()
    passed = filter_records(
        run.counted(stream, "images to filter"),
        conditions=conditions,
        correct=correct,
        per_prompt=per_prompt,
        top=top,
        by=by,
        count=lambda what: counts.update([what]),
    )
    # Without -o, the command ends when the reader of stdout has seen enough.
    run.emit(run.tee(passed, target, force=force), show=show_images, take_all=output is not None)
    note(f"{counts['passed']:,} of {counts['read']:,} images passed")
    run.finish((target, "image"))
