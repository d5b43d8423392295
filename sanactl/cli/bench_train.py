"""`sanactl bench train`: the time of a training step, beside a plain diffusers loop."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from sanactl.cli.frame.options import choices
from sanactl.records.records import Record

__all__ = ["train"]


def train(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            **choices("base", "mid", "tiny"),
            help="Model: the built-in base at 64 px; random weights of width 512 with 8 blocks, at 512 px with 300 text tokens (mid); or a tiny one, for a trial.",
        ),
    ] = "base",
    batch_size: Annotated[
        int, typer.Option("--batch-size", "-b", min=1, metavar="INT", help="Number of images of a step.")
    ] = 8,
    steps: Annotated[int, typer.Option(min=1, metavar="INT", help="Number of steps of each turn.")] = 5,
    rounds: Annotated[int, typer.Option(min=1, metavar="INT", help="Number of turns of each program.")] = 5,
    precision: Annotated[
        Optional[str],
        typer.Option(
            "--precision",
            **choices("fp32", "bf16"),
            help="Precision of both programs. Default: bf16 on a GPU, fp32 on a CPU.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", metavar="NAME", help="Device to train on: cpu or cuda.")
    ] = "cpu",
) -> None:
    """Measure a step of finetune beside a plain diffusers training loop, with AdamW and encoded data.

    Some minutes each:
    [bold]sanactl bench train[/bold]
    [bold]sanactl bench train --model mid --batch-size 2 --steps 1[/bold]

    Each program runs in a process of its own, and they take turns. The ratio is
    that of the medians: below 1, finetune is faster. A pipe gets a score record:
    value (the ratio), ratios (the least and the most of a turn), cpu_ratio (that
    of processor times, on a CPU), seconds and their_seconds of a step, parts
    (seconds of each part of finetune's step).
    """
    from sanactl.bench.train_speed import measure_train_speed
    from sanactl.cli.frame.run import Invocation
    from sanactl.records.scores import new_score

    run = Invocation("bench train")
    settings = {"batch_size": batch_size, "precision": precision, "device": device}
    found = measure_train_speed(model, settings, steps=steps, rounds=rounds, tick=run.progress.note)
    about = {"model": model, "batch": batch_size, "precision": precision, "device": device, "rounds": rounds}
    run.emit([new_score("train_step", found.pop("ratio"), **about, **found)], show=_show)


def _show(records: list[Record]) -> None:
    from rich.table import Table

    from sanactl.cli.frame.console import PlainConsole

    for row in records:
        table = Table(title=f"{row['model']}, {row['batch']} images a step, {row['device']}", box=None)
        table.add_column("what", no_wrap=True)
        table.add_column("ms a step", justify="right")
        lines = {"finetune": row["seconds"], "diffusers loop": row["their_seconds"]}
        for name, seconds in {**lines, **{f"  {part}": s for part, s in row["parts"].items()}}.items():
            table.add_row(name, f"{1000 * seconds:.1f}")
        table.add_row("finetune / diffusers loop", f"{row['value']:.3f}")
        if row["cpu_ratio"] is not None:
            table.add_row("  of processor time", f"{row['cpu_ratio']:.3f}")
        PlainConsole().print(table)
