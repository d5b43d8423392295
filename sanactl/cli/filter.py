"""`sanactl filter`: passes on some of the images."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Optional

import typer

from sanactl.cli.frame.options import Device, Force, MaxBad, Output, RecordsArgument, Seed, Sheet

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
    dedup: Annotated[
        Optional[str],
        typer.Option(
            metavar="HOW",
            help="Pass on one of several images that are alike: phash or phash:BITS by a perceptual hash of which at most so "
            "many of 64 bits differ (2), clip, clip:MODEL or clip:MODEL:COSINE by CLIP's vectors (0.97). Default: all "
            "pass.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        Optional[str],
        typer.Option(
            metavar="FIELD",
            help="Field that --top and --dedup compare; a larger value is better. Default: judge_score for --top; with "
            "--dedup the first of images that are alike passes.",
            show_default=False,
        ),
    ] = None,
    max_bad: MaxBad = 0,
    sample: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            metavar="INT",
            help="Number of images to pass on in all, drawn at random from those that pass everything else. Default: all.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    output: Output = None,
    sheet: Sheet = None,
    force: Force = False,
) -> None:
    """Pass on the image records that satisfy all conditions, unchanged.

    [bold]sanactl filter geneval.jsonl --correct --per-prompt 10[/bold]
    [bold]sanactl filter judge.jsonl --where 'judge_score > 0.8'[/bold]
    [bold]sanactl filter clip.jsonl --dedup phash --by clip_score --sample 500[/bold]
    Train on the images that were found correct:
    [bold]sanactl filter geneval.jsonl --correct | sanactl finetune base.st -d -[/bold]

    Records go to stdout and to filter.jsonl.
    """
    from contextlib import ExitStack

    from sanactl.cli.frame.render import show_images
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.stdin import first_reads_alone
    from sanactl.cli.frame.streams import find_records
    from sanactl.cli.frame.terminal import is_first_process, note
    from sanactl.errors import UsageError
    from sanactl.model.sharing import leading, on_each, serve
    from sanactl.report.text import counted
    from sanactl.scoring.filter import Condition, Filter, filter_records
    from sanactl.scoring.near import open_likeness

    if by is not None and not (top or dedup is not None):
        raise UsageError("--by is for --top and --dedup", hint="give one of them")
    if max_bad and dedup is None:
        raise UsageError("--max-bad is for --dedup, which alone reads the images", hint="leave it out")
    if not (correct or where or per_prompt or top or dedup is not None or sample):
        raise UsageError(
            "no condition is given",
            hint="give --correct, --where, --per-prompt, --top, --dedup or --sample",
        )
    conditions = [Condition(text) for text in where or ()]
    run = Invocation("filter", seed=seed if sample else None)

    def find() -> Any:
        """The first process's input and output; the others get only what compares images."""
        if not is_first_process():
            return None
        run.sheet(sheet, force=force)
        target = run.records_file(output, "filter", force=force)
        return target, *find_records(
            records,
            ("image",),
            what="images to filter",
            hint="sanactl eval geneval | sanactl filter --correct",
            checked=False,
        )

    with first_reads_alone(), ExitStack() as stack:
        likeness = on_each(lambda: None if dedup is None else open_likeness(dedup, device))
        found = on_each(find)
        shared = likeness is not None and likeness.divides
        if found is None:
            if likeness is not None and shared:
                serve(likeness.read)
            return
        target, stream, source = found
        if shared:
            stack.enter_context(leading())
        run.uses(source)
        counts: Counter[str] = Counter()
        wanted = Filter(conditions, correct, likeness, per_prompt, top, by, sample, seed, max_bad)
        passed = filter_records(
            run.counted(stream, "images to filter", source=source),
            wanted,
            count=lambda what: counts.update([what]),
            tell=note,
        )
        # Without -o, the command ends when the reader of stdout has seen enough.
        run.emit(run.tee(passed, target, force=force), show=show_images, take_all=output is not None)
    dropped = ", ".join(
        f"{counts[option]:,} by {option}" + (f" {likeness.name}" if option == "--dedup" and likeness else "")
        for option in ("--correct", "--where", "--dedup", "--per-prompt", "--top", "--sample")
        if counts[option]
    )
    note(
        f"{counts['passed']:,} of {counts['read']:,} images passed"
        + (f"; dropped: {dropped}" if dropped else "")
        + (f"; {counted(counts['damaged'], 'record')} left out" if counts["damaged"] else "")
    )
    run.finish((target, "image"))
