"""`sanactl bench optim`: a comparison of optimizers."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Optional

import typer

from sanactl.cli.frame.options import Device, Dtype, choices
from sanactl.optim.table import OPTIMIZERS

__all__ = ["optim"]


def optim(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="Model whose blocks are measured: SANA 0.6b and 1.6b, SANA-1.5 4.8b, or tiny.",
            **choices("tiny", "0.6b", "1.6b", "4.8b"),
        ),
    ] = "1.6b",
    blocks: Annotated[
        Optional[int],
        typer.Option(
            "--blocks",
            min=1,
            metavar="INT",
            help="Number of blocks. Default: as many as fit into free memory.",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, metavar="INT", help="Number of turns of each optimizer.")
    ] = 3,
    steps: Annotated[
        Optional[int],
        typer.Option(
            "--steps",
            min=1,
            metavar="INT",
            help="Number of timed steps in a turn. Default: 1 on a CPU, 10 on a GPU.",
            show_default=False,
        ),
    ] = None,
    optimizer: Annotated[
        Optional[str],
        typer.Option(
            "--optimizer",
            metavar="NAMES",
            help="Optimizers to measure, separated by commas. Default: all.",
            show_default=False,
            autocompletion=lambda: [*OPTIMIZERS],
        ),
    ] = None,
    launches: Annotated[
        bool,
        typer.Option(
            "--launches",
            help="Count what a step launches on a GPU, over all blocks of the model. Nothing is run and no GPU is needed.",
        ),
    ] = False,
    dtype: Dtype = None,
    device: Device = None,
) -> None:
    """Measure optimizers on SANA's blocks: step time, state, peak memory, share of the copy bandwidth.

    All optimizers, on two blocks of SANA 1.6B:
    [bold]sanactl bench optim --blocks 2[/bold]
    [bold]sanactl bench optim --optimizer adamw,came8bit[/bold]

    How many kernels a step launches on a GPU:
    [bold]sanactl bench optim --launches --model 4.8b --optimizer came8bit[/bold]

    They take turns, each with new state, so that a busy machine disturbs all
    alike. One that cannot run here has a row with the reason. On a GPU, those
    named -captured replay their step from a CUDA graph. A pipe gets score
    records: step_ms and step_ms_min (also as value: step_ms), step_cpu_ms_min,
    moved_bytes_, state_bytes_ and peak_bytes_per_parameter, copy_share (of the
    copy bandwidth copy_gb_s); with --launches: launches.
    """
    from sanactl.bench import optim as bench
    from sanactl.bench.contenders import CONTENDERS
    from sanactl.cli.frame.stdout import write_line
    from sanactl.cli.frame.terminal import is_first_process, note
    from sanactl.errors import UsageError
    from sanactl.model.conditioning import pick_device
    from sanactl.model.loading import resolve_dtype
    from sanactl.records.records import dumps
    from sanactl.records.scores import new_score

    names = None if optimizer is None else [name.strip() for name in optimizer.split(",") if name.strip()]
    if launches:
        count_launches(model, blocks, names, dtype)
        return
    place = pick_device(device)
    kind = resolve_dtype(dtype, place)
    count = bench.fitting_blocks(model, kind, place) if blocks is None else blocks
    if names == []:
        raise UsageError("--optimizer names none", hint=f"choose from {', '.join(CONTENDERS)}")
    tables = bench.run(model, count, rounds=rounds, steps=steps, optimizers=names, dtype=kind, device=place)
    if not is_first_process():
        return
    number = len(names) if names else sum(place.type == "cuda" or not c.captured for c in CONTENDERS.values())
    note(
        f"optimizers: {number}, rounds: {rounds}, blocks of {model}: {count}; --blocks and --optimizer take less"
    )
    if sys.stdout.isatty():
        from rich.live import Live

        from sanactl.cli.frame.console import PlainConsole

        with Live(console=PlainConsole(), auto_refresh=False) as live:
            for table in tables:
                live.update(show(table), refresh=True)
        return
    *_, table = tables
    for row in table:
        write_line(dumps(new_score("optimizer_step", row.get("step_ms"), unit="ms", **row)))


def count_launches(model: str, blocks: int | None, names: list[str] | None, dtype: str | None) -> None:
    """A row for each optimizer; in bf16 unless a dtype is given."""
    import torch

    from sanactl.bench import launches
    from sanactl.cli.frame.stdout import write_line
    from sanactl.cli.frame.terminal import is_first_process
    from sanactl.errors import UsageError
    from sanactl.model.loading import resolve_dtype
    from sanactl.records.records import dumps
    from sanactl.records.scores import new_score

    if names == []:
        raise UsageError("--optimizer names none", hint=f"choose from {', '.join(launches.WAYS)}")
    kind = resolve_dtype(dtype or "bf16", torch.device("cpu"))
    rows = launches.count_launches(model, blocks, ways=names, dtype=kind)
    if not is_first_process():
        return
    if not sys.stdout.isatty():
        for row in rows:
            write_line(dumps(new_score("optimizer_launches", row["launches"], unit="launches", **row)))
        return
    from rich.table import Table

    from sanactl.cli.frame.console import PlainConsole, data

    table = Table(title=f"launches of one step, blocks of {model}", box=None)
    table.add_column("optimizer", overflow="fold")
    for heading in ("blocks", "torch", "Triton", "launches"):
        table.add_column(heading, justify="right")
    for row in rows:
        numbers = (row["blocks"], row["torch"], row["triton"], row["launches"])
        table.add_row(data(row["optimizer"]), *(f"{n:,}" for n in numbers))
    PlainConsole().print(table)


def show(rows: list[dict[str, Any]]) -> Any:
    """The rows as a table for a terminal."""
    from rich.table import Table

    from sanactl.cli.frame.console import data
    from sanactl.files.human import human_count

    first = rows[0]
    speed = next((f", copies {row['copy_gb_s']:.3g} GB/s" for row in rows if "copy_gb_s" in row), "")
    title = (
        f"{first['model']}, blocks: {first['blocks']}, {human_count(first['parameters'])} parameters,"
        f" {first['dtype']}, {first['device']}{speed}"
    )
    absent = [f"{row['optimizer']}: {row['error']}" for row in rows if "error" in row]
    caption = "\n".join(
        [
            *absent,
            "to public: step time over that of the public SANA code's way",
            "of copy: the bytes that a step must move, a second, over the copy bandwidth",
            "state, peak: bytes a parameter; peak is above parameters and gradients",
        ]
    )
    table = Table(title=title, caption=caption, caption_justify="left", box=None)
    table.add_column("optimizer", overflow="fold")
    for heading in ("step ms", "least", "to public", "of copy", "state", "peak"):
        table.add_column(heading, justify="right")
    for row in rows:
        if "error" in row:
            continue
        table.add_row(
            data(row["optimizer"]),
            f"{row['step_ms']:,.1f}",
            f"{row['step_ms_min']:,.1f}",
            "" if row["ratio"] is None else f"{row['ratio']:.2f}",
            f"{row['copy_share']:.0%}",
            f"{row['state_bytes_per_parameter']:.3f}",
            "" if row["peak_bytes_per_parameter"] is None else f"{row['peak_bytes_per_parameter']:.1f}",
        )
    return table
