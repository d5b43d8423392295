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
def geneval() -> None:
    """Write GenEval's 553 prompts: the official evaluation_metadata.jsonl, byte for byte.

    [bold]sanactl prompts geneval > geneval.jsonl[/bold]
    [bold]sanactl sample MODEL --prompts geneval.jsonl -n 4 | sanactl eval geneval[/bold]

    They are drawn from the official seed, nothing is downloaded. Each line is a
    prompt record as it stands; like the official ones they have no kind.
    """
    from sanactl.cli.frame.stdout import write_line
    from sanactl.prompts.geneval.benchmark import geneval_prompts
    from sanactl.records.records import dumps

    for record in geneval_prompts():
        write_line(dumps(record))


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
            help="Number of prompts to draw. Default: the 360 evaluation prompts; 100 of the other splits.",
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
) -> None:
    """Write prompts of the built-in world, in GenEval's six tasks, as prompt records.

    [bold]sanactl prompts shapes --split train -n 500 > train.jsonl[/bold]
    """
    import numpy as np

    from sanactl.cli.frame.run import Invocation
    from sanactl.errors import UsageError
    from sanactl.shapes.prompts import SPLITS, Record, load_eval_prompts, sample_prompt
    from sanactl.shapes.vocabulary import TASKS

    if split not in SPLITS:
        raise UsageError(f"--split {split}: choose one of {', '.join(SPLITS)}")
    if tag is not None and tag not in TASKS:
        raise UsageError(f"--tag {tag}: choose one of {', '.join(TASKS)}")
    if count is None and split == "eval":
        records = [r for r in load_eval_prompts() if tag in (None, r["tag"])]
    else:
        rng = np.random.default_rng(seed)
        drawn: dict[str, Record] = {}
        # Small tasks have few prompts: after many repeats the rest is given up rather than waited for.
        for attempt in range(200 * (count or 100)):
            record = sample_prompt(rng, tag or TASKS[attempt % len(TASKS)], split)
            drawn.setdefault(record["prompt"], record)
            if len(drawn) == (count or 100):
                break
        records = [{"id": f"{split}-{i:05d}", **r} for i, r in enumerate(drawn.values())]
    Invocation("prompts").emit({"kind": "prompt", **r} for r in records)
