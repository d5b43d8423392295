"""`inspect` for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from sanactl.cli.render import human_bytes, human_count

__all__ = ["show_inspection"]

# What tells SANA models apart; the rest of the config is in --json.
CONFIG_KEYS = ("num_layers", "num_attention_heads", "attention_head_dim", "num_cross_attention_heads",
               "cross_attention_head_dim", "caption_channels", "in_channels", "sample_size", "mlp_ratio", "qk_norm")  # fmt: skip


def show_inspection(record: dict[str, Any]) -> None:
    """A summary, the config's main values, companions, and the lineage as a chain."""
    console = Console()
    table = Table(show_header=False, box=None)
    table.add_column()
    table.add_column(overflow="fold")  # a digest is of use only whole
    table.add_row("checkpoint", f"[bold]{record['path']}[/bold] ({record['format']})")
    table.add_row("blocks", str(record["blocks"]))
    table.add_row("parameters", f"{human_count(record['parameters'])} ({record['parameters']:,})")
    table.add_row("size", human_bytes(record["bytes"]))
    table.add_row("dtypes", ", ".join(f"{d} {human_count(n)}" for d, n in record["dtypes"].items()))
    table.add_row("digest", record["digest"])
    table.add_row("config", ", ".join(f"{k} {record['config'].get(k)}" for k in CONFIG_KEYS))
    for part, entry in record["companions"].items():
        table.add_row(
            part.replace("_", " "), "/".join(filter(None, (entry["source"], entry.get("subfolder"))))
        )
    if record["sampling"]:
        table.add_row("sampling", ", ".join(f"{k} {v}" for k, v in record["sampling"].items()))
    console.print(table)
    if record["lineage"]:
        tree = node = Tree("lineage")
        for step in record["lineage"]:
            arguments = ", ".join(
                f"{k} {v}" for k, v in step.get("arguments", {}).items() if not isinstance(v, dict)
            )
            node = node.add(
                f"[bold]{step.get('command')}[/bold] to {step.get('blocks')} blocks  [dim]{arguments}[/dim]"
            )
        console.print(tree)
    if "tensors" in record:
        listing = Table("tensor", "dtype", "shape", box=None)
        for name, tensor in record["tensors"].items():
            listing.add_row(name, tensor["dtype"], " x ".join(map(str, tensor["shape"])))
        console.print(listing)
