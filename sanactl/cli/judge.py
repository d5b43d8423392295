"""`sanactl judge`: the tournament of section 2.5."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from sanactl.cli.frame.options import BatchSize, Device, Dtype, Force, Output, RecordsArgument, Sheet

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def judge(
    records: RecordsArgument = None,
    keep: Annotated[
        Optional[int],
        typer.Option(
            "--keep", "-k", min=1, help="The best so many of each prompt. Default: 1.", show_default=False
        ),
    ] = None,
    all_images: Annotated[bool, typer.Option("--all", help="Pass on every image, with its rank.")] = False,
    model: Annotated[
        Optional[str],
        typer.Option(
            "--model",
            "-m",
            help="A vision-language model's folder or Hub id; oracle: the built-in detector. Default: the built-in judge.",
            show_default=False,
        ),
    ] = None,
    batch_size: BatchSize = 32,
    device: Device = None,
    dtype: Dtype = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the model's own code.")
    ] = False,
    output: Output = None,
    sheet: Sheet = None,
    force: Force = False,
) -> None:
    """Let a vision-language model pick the best images of each prompt; each image is scored once.

    [bold]sanactl sample -n 16 | sanactl judge --keep 4[/bold]
    [bold]sanactl judge images.jsonl --model oracle[/bold]
    [bold]sanactl judge base-samples/[/bold]                  a folder in GenEval's layout

    Winners' records go to stdout and to judge.jsonl. Stop it at any time: the same command goes on where it was.
    """
    from sanactl.cli.frame.render import show_images
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.streams import find_records
    from sanactl.errors import UsageError
    from sanactl.judging.judge import open_judge
    from sanactl.judging.select import judge_stream

    if keep is not None and all_images:
        raise UsageError("--keep and --all exclude each other")
    run = Invocation("judge")
    run.sheet(sheet, force=force)
    target = run.records_file(output, "judge", force=force)
    stream, source = find_records(
        records, ("image",), what="images to judge", hint="sanactl sample | sanactl judge", unjudged=True
    )
    chosen = open_judge(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    run.uses(source)
    with run.keeping(target, judge=chosen.identity) as kept:
        winners = judge_stream(
            run.counted(stream, "images to judge"),
            chosen,
            keep=None if all_images else keep or 1,
            batch_size=batch_size,
            kept=kept,
            progress=run.progress,
        )
        run.emit(run.tee(winners, target, force=force), show=show_images, owed=True)
    run.finish((target, "image"), judge=chosen.name)
