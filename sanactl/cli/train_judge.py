"""`sanactl train-judge`: a judge of the built-in world (appendix B)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from sanactl.cli.frame.options import BatchSize, Force, Output, RecordsArgument, Seed

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def train_judge(
    records: RecordsArgument = None,
    rendered: Annotated[
        bool,
        typer.Option(
            "--rendered", help="Train only on rendered pictures with faults, without image records."
        ),
    ] = False,
    start: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FOLDER",
            help="Folder of a judge to start from. Default: random weights.",
            exists=True,
            show_default=False,
        ),
    ] = None,
    warmup_steps: Annotated[
        int, typer.Option(min=0, metavar="INT", help="Number of steps that train the vision tower alone.")
    ] = 2000,
    steps: Annotated[
        int,
        typer.Option(min=0, metavar="INT", help="Number of steps that train the whole judge on questions."),
    ] = 4000,
    batch_size: BatchSize = 32,
    lr: Annotated[
        float, typer.Option(min=0, metavar="FLOAT", help="Largest learning rate, after the warm-up.")
    ] = 2e-3,
    pool_size: Annotated[
        int, typer.Option(min=1, metavar="INT", help="Number of rendered pictures to train on.")
    ] = 24_000,
    save_every: Annotated[
        int, typer.Option(min=1, metavar="INT", help="Number of steps from one saved state to the next.")
    ] = 200,
    resume: Annotated[
        bool, typer.Option("--resume/--restart", help="Continue an interrupted run, or start it again.")
    ] = True,
    seed: Seed = 0,
    output: Output = None,
    force: Force = False,
) -> None:
    """Train a judge on sampled images (paper, appendix B). The detector labels them.

    [bold]sanactl prompts shapes --split train -n 500 > train.jsonl[/bold]
    [bold]sanactl sample --prompts train.jsonl -n 8 -o judge-samples[/bold]
    [bold]sanactl train-judge judge-samples/images.jsonl -o judge[/bold]

    Evaluation prompts are refused. Balanced accuracy, AUC and best of n on
    held-out prompts go to stdout as score records.
    """
    from sanactl.cli.frame.outputs import check_folder
    from sanactl.cli.frame.render_scores import show_scores
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.streams import find_records
    from sanactl.errors import UsageError
    from sanactl.files.atomic import check_target
    from sanactl.world.judge_measure import score_records
    from sanactl.world.judge_settings import JudgeTraining
    from sanactl.world.train_judge import train_judge as train

    if rendered and records is not None:
        raise UsageError("--rendered takes no records")
    settings = JudgeTraining(
        start=start,
        warmup_steps=warmup_steps,
        steps=steps,
        batch_size=batch_size,
        learning_rate=lr,
        pool_size=pool_size,
        save_every=save_every,
        seed=seed,
    )
    run = Invocation("train-judge", seed=seed)
    target = output or Path("judge")
    check_folder(target)
    check_target(target, force)
    labelled = None
    if not rendered:
        stream, source = find_records(
            records,
            ("image",),
            what="labelled images",
            hint="sanactl sample | sanactl eval geneval | sanactl train-judge",
        )
        run.uses(source)
        labelled = list(run.counted(stream, "labelled images"))
    figures = train(labelled, target, settings, restart=not resume, force=force, progress=run.progress)
    run.emit(score_records(figures), show=show_scores, take_all=True)
    run.finish((target, "judge"))
