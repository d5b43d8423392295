"""The output of `inspect` on a terminal."""

from __future__ import annotations

from typing import Any

from rich.text import Text
from rich.tree import Tree

from sanactl.cli.frame.console import PlainConsole, data, show_rows
from sanactl.files.human import human_bytes, human_count

__all__ = ["show_inspection"]

# What tells SANA models apart; the rest of the config is in --json.
CONFIG_KEYS = ("num_layers", "num_attention_heads", "attention_head_dim", "num_cross_attention_heads",
               "cross_attention_head_dim", "caption_channels", "in_channels", "sample_size", "mlp_ratio", "qk_norm")  # fmt: skip


def show_inspection(record: dict[str, Any]) -> None:
    """A summary, the config's main values, components, and the lineage as a chain."""
    console = PlainConsole()
    rows: list[tuple[str, Text]] = [
        ("checkpoint", data(record["path"], "bold").append(f" ({record['format']})", "not bold")),
        ("model", data(record["model"])),
        ("blocks", data(record["blocks"])),
        ("parameters", data(f"{human_count(record['parameters'])} ({record['parameters']:,})")),
        ("size", data(human_bytes(record["bytes"]))),
        ("dtypes", data(", ".join(f"{d} {human_count(n)}" for d, n in record["dtypes"].items()))),
        ("digest", data(record.get("digest") or "not taken (--digest takes it)")),
        ("config", data(", ".join(f"{k} {record['config'].get(k)}" for k in CONFIG_KEYS))),
    ]
    for part, entry in record["components"].items():
        where = "/".join(filter(None, (entry["source"], entry.get("subfolder"))))
        rows.append((part.replace("_", " "), data(where)))
    if record["sampling"]:
        rows.append(("sampling", data(", ".join(f"{k} {v}" for k, v in record["sampling"].items()))))
    show_rows(console, ("", ""), rows)
    if record["lineage"]:
        tree = node = Tree("lineage")
        for step in record["lineage"]:
            arguments = ", ".join(
                f"{k} {v}" for k, v in step.get("arguments", {}).items() if not isinstance(v, dict)
            )
            blocks = f" to {step['blocks']} blocks" if step.get("blocks") is not None else ""
            line = data(step.get("command"), "bold").append(f"{blocks}  ", "not bold")
            node = node.add(line.append_text(data(arguments, "dim")))
        console.print(tree)
    if "tensors" in record:
        tensors = (
            (data(name), data(tensor["dtype"]), " x ".join(map(str, tensor["shape"])))
            for name, tensor in record["tensors"].items()
        )
        show_rows(console, ("tensor", "dtype", "shape"), tensors)
