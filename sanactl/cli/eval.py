"""`sanactl eval`: scores of images."""

from __future__ import annotations

from typing import Annotated

import typer

from sanactl.cli.frame.options import Force, Output, RecordsArgument

app = typer.Typer(add_completion=False, rich_markup_mode="rich", no_args_is_help=True)


@app.callback()
def metrics() -> None:
    """Score images: eval geneval."""


@app.command()
def geneval(
    records: RecordsArgument = None,
    detector: Annotated[
        str, typer.Option(help="Who finds the objects: shapes, the built-in world's detector.")
    ] = "shapes",
    output: Output = None,
    force: Force = False,
) -> None:
    """Score images by GenEval's rules: six tasks, each with its 95 % interval.

    [bold]sanactl sample --prompts shapes | sanactl eval geneval[/bold]
    [bold]sanactl eval geneval base-samples/[/bold]           a folder in GenEval's layout

    The records go on to stdout with their verdicts, then one score record; all also to geneval.jsonl.
    Stop it at any time: the same command goes on where it was.
    """
    from sanactl.cli.frame.render_scores import show_scores
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.streams import find_records
    from sanactl.scoring.geneval.evaluate import evaluate_geneval
    from sanactl.scoring.geneval.rules import get_detector

    run = Invocation("eval geneval")
    target = run.records_file(output, "geneval", force=force)
    stream, source = find_records(
        records, ("image",), what="images to score", hint="sanactl sample | sanactl eval geneval"
    )
    run.uses(source)
    with run.keeping(target, detector=get_detector(detector).label) as kept:
        scored = evaluate_geneval(
            run.counted(stream, "images to score"), detector=detector, kept=kept, progress=run.progress
        )
        run.emit(run.tee(scored, target, force=force), show=show_scores, owed=True)
    run.finish((target, "score"))
