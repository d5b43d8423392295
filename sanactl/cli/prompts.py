"""`sanactl prompts`: prompt records of the built-in world, of GenEval and of DPG-Bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from sanactl.cli.frame.options import Seed, choices

app = typer.Typer(add_completion=False, rich_markup_mode="rich", no_args_is_help=True)


def _tasks() -> list[str]:
    from sanactl.shapes.vocabulary import TASKS

    return [*TASKS]


@app.callback()
def sources() -> None:
    """Write prompt files: of the built-in world, of GenEval, of DPG-Bench."""


@app.command()
def geneval(
    split: Annotated[
        str,
        typer.Option(
            help="The benchmark's prompts (official), or new ones (train).", **choices("official", "train")
        ),
    ] = "official",
    count: Annotated[
        Optional[int],
        typer.Option(
            "-n",
            "--count",
            min=1,
            metavar="INT",
            help="Number of prompts to draw. Default: 18240, as in the paper.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        Optional[int],
        typer.Option(
            min=0, max=2**53 - 1, metavar="INT", help="Seed of the draws. Default: 0.", show_default=False
        ),
    ] = None,
    weights: Annotated[
        Optional[str],
        typer.Option(
            metavar="TASK:W,...",
            help="Weights of the tasks to draw from. A task that is not named gives no prompts. Default: equal weights, "
            "without single_object, which has no prompt that the benchmark lacks.",
            show_default=False,
        ),
    ] = None,
    exclude: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="FILE",
            help="File of prompts whose meaning is left out, too, as --prompts takes it. none keeps the benchmark's in the "
            "drawing. It can be repeated: none and a FILE leave out only what the file has. Default: the benchmark's prompts.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write GenEval's 553 prompts, byte for byte, or new ones of its grammar.

    [bold]sanactl prompts geneval > geneval.jsonl[/bold]
    [bold]sanactl sample MODEL --prompts geneval.jsonl -n 4 | sanactl eval geneval[/bold]
    [bold]sanactl prompts geneval --split train -n 5000 --seed 1 > train.jsonl[/bold]
    [bold]sanactl prompts geneval --split train -n 99 --weights position:2,counting:1[/bold]

    The official ones are drawn from the official seed; nothing is downloaded.
    They have no kind, like those of the official file. New ones mean nothing
    that an official one means. Their words are correct English.
    """
    from sanactl.cli.frame.excluded import read_excluded
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.stdout import write_line
    from sanactl.cli.frame.terminal import note
    from sanactl.errors import UsageError
    from sanactl.prompts.draw import parse_weights
    from sanactl.prompts.geneval.benchmark import geneval_prompts
    from sanactl.prompts.geneval.train import PAPER_COUNT, train_prompts
    from sanactl.prompts.geneval.vocabulary import TASKS
    from sanactl.records.records import dumps

    given = {"-n": count, "--seed": seed, "--weights": weights, "--exclude": exclude or None}
    if split == "official":
        if named := [name for name, value in given.items() if value is not None]:
            raise UsageError(
                f"{named[0]} is for --split train: the official prompts are what they are",
                hint="add --split train",
            )
        for record in geneval_prompts():
            write_line(dumps(record))
        return
    if split != "train":
        raise UsageError(f"--split {split}: choose one of official, train")
    records = train_prompts(
        count or PAPER_COUNT,
        seed=seed or 0,
        excluded=read_excluded(exclude, geneval_prompts(), "the benchmark's prompts"),
        weights=None if weights is None else parse_weights(weights, TASKS),
        tell=note,
    )
    Invocation("prompts").emit({"kind": "prompt", **r} for r in records)


@app.command()
def dpg(
    file: Annotated[
        Path,
        typer.Argument(
            help="DPG-Bench's table dpg_bench.csv, or its folder of prompts.",
            metavar="PATH",
            show_default=False,
        ),
    ],
) -> None:
    """Write DPG-Bench's prompts as prompt records with their item_id.

    [bold]sanactl prompts dpg dpg_bench.csv > dpg.jsonl[/bold]
    [bold]sanactl sample MODEL --prompts dpg.jsonl -n 4 -o dpg-images[/bold]
    """
    from sanactl.cli.frame.run import Invocation
    from sanactl.files.paths import user_path
    from sanactl.scoring.questions.dpg_prompts import dpg_prompts

    Invocation("prompts").emit(dpg_prompts(user_path(str(file))))


@app.command()
def shapes(
    split: Annotated[
        str,
        typer.Option(
            help="Split of the prompts; no prompt is in two of them.", **choices("train", "eval", "calib")
        ),
    ] = "eval",
    count: Annotated[
        Optional[int],
        typer.Option(
            "-n",
            "--count",
            min=1,
            metavar="INT",
            help="Number of prompts to draw. Default: 360 of the evaluation split, without other options those that are "
            "checked in; 100 of the other splits.",
            show_default=False,
        ),
    ] = None,
    tag: Annotated[
        Optional[str],
        typer.Option(
            metavar="TASK",
            help="Task of the prompts. Default: all six.",
            show_default=False,
            autocompletion=_tasks,
        ),
    ] = None,
    seed: Seed = 0,
    weights: Annotated[
        Optional[str],
        typer.Option(
            metavar="TASK:W,...",
            help="Weights of the tasks to draw from. A task that is not named gives no prompts. Default: equal weights.",
            show_default=False,
        ),
    ] = None,
    exclude: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="FILE",
            help="File of prompts whose meaning is left out, as --prompts takes it. In tasks with few meanings "
            "(single_object, counting, colors) the same words are left out. none leaves out nothing. It can be repeated. Default: none.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write prompts of the built-in world, in GenEval's six tasks, as prompt records.

    [bold]sanactl prompts shapes --split train -n 500 > train.jsonl[/bold]
    [bold]sanactl prompts shapes --split train -n 90 --weights position:2,counting:1[/bold]
    """
    from sanactl.cli.frame.excluded import read_excluded
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.terminal import note
    from sanactl.errors import UsageError
    from sanactl.prompts.draw import parse_weights
    from sanactl.prompts.shapes import shapes_prompts
    from sanactl.shapes.prompts import SPLITS, load_eval_prompts
    from sanactl.shapes.vocabulary import TASKS

    if split not in SPLITS:
        raise UsageError(f"--split {split}: choose one of {', '.join(SPLITS)}")
    if tag is not None and tag not in TASKS:
        raise UsageError(f"--tag {tag}: choose one of {', '.join(TASKS)}")
    if tag is not None and weights is not None:
        raise UsageError("--tag and --weights exclude each other", hint=f"--weights {tag}:1 is --tag {tag}")
    excluded = read_excluded(exclude, [], "")
    if count is None and split == "eval" and weights is None and not excluded:
        records = [r for r in load_eval_prompts() if tag in (None, r["tag"])]
    else:
        records = shapes_prompts(
            split,
            count or (360 if split == "eval" else 100),
            seed=seed,
            excluded=excluded,
            weights={tag: 1.0} if tag else None if weights is None else parse_weights(weights, TASKS),
            tell=note,
        )
    Invocation("prompts").emit({"kind": "prompt", **r} for r in records)
