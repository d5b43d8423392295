"""`--dry-run` for people: a plan before and after, and what training its result would take."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from sanactl.cli.render import human_bytes, human_count
from sanactl.io.records import Record
from sanactl.surgery.select import format_blocks

__all__ = ["show_plan"]


def show_plan(records: list[Record]) -> None:
    console = Console()
    for r in records:
        console.print(f"[bold]plan for {r['path']}[/bold] (nothing is written)", highlight=False)
        table = Table("", "before", "after", box=None)
        for column in table.columns[1:]:
            column.justify = "right"
        table.add_row("blocks", str(r["blocks_before"]), str(r["blocks_after"]))
        table.add_row("parameters", human_count(r["parameters_before"]), human_count(r["parameters_after"]))
        table.add_row("size", human_bytes(r["bytes_before"]), human_bytes(r["bytes_after"]))
        table.add_row("FLOPs a forward", human_count(r["flops_before"]), human_count(r["flops_after"]))
        for key, what in (
            ("bytes_copied", "to copy"),
            ("bytes_generated", "to generate"),
            ("bytes_zero", "zeros, not stored"),
        ):
            table.add_row(what, "", human_bytes(r[key]))
        console.print(table)
        if "dropped" in r:
            share = r.get("dropped_importance")
            held = "" if share is None else f" ({100 * share:.1f} % of the importance)"
            console.print(f"blocks that go: {format_blocks(r['dropped']) or 'none'}{held}", highlight=False)
        console.print(f"FLOPs: {_size(r)}, one image, one pass", style="dim", highlight=False)
        console.print(_memory(r))
        console.print("fp32 weights and gradients; activations come on top", style="dim", highlight=False)


def _size(record: Record) -> str:
    resolution = record["resolution"]
    pixels = f"{resolution.replace('x', ' x ')} pixels, " if resolution else ""
    return f"{pixels}{record['image_tokens']:,} image and {record['text_tokens']} text tokens"


def _memory(record: Record) -> Table:
    """Training memory of the result, a row an optimizer."""
    table = Table("training memory", "weights", "gradients", "optimizer", "in all", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for optimizer, parts in record["training_memory"].items():
        sizes = (human_bytes(parts[key]) for key in ("weights", "gradients", "optimizer", "total"))
        table.add_row(f"--optimizer {optimizer}", *sizes)
    return table
