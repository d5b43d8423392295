"""The output of `--dry-run` on a terminal: a plan's numbers, and the memory for training."""

from __future__ import annotations

from sanactl.cli.frame.console import PlainConsole, data, show_rows
from sanactl.files.human import format_ranges, human_bytes, human_count
from sanactl.records.records import Record

__all__ = ["show_plan", "show_training_plan"]


def show_plan(records: list[Record]) -> None:
    """Before and after, what is copied and generated, and the memory that training the result takes."""
    console = PlainConsole()
    for r in records:
        console.print(data(f"plan for {r['path']}", "bold").append(" (nothing is written)", "not bold"))
        rows = [
            ("blocks", str(r["blocks_before"]), str(r["blocks_after"])),
            ("parameters", human_count(r["parameters_before"]), human_count(r["parameters_after"])),
            ("size", human_bytes(r["bytes_before"]), human_bytes(r["bytes_after"])),
            ("FLOPs a forward", human_count(r["flops_before"]), human_count(r["flops_after"])),
            ("to copy", "", human_bytes(r["bytes_copied"])),
            ("to generate", "", human_bytes(r["bytes_generated"])),
            ("zeros, not stored", "", human_bytes(r["bytes_zero"])),
        ]
        show_rows(console, ("", "before", "after"), rows, right=(1, 2))
        if "dropped" in r:
            share = r.get("dropped_importance")
            held = "" if share is None else f" ({100 * share:.1f} % of the importance)"
            console.print(f"blocks that go: {format_ranges(r['dropped']) or 'none'}{held}")
        console.print(data(f"FLOPs: {_size(r)}, one image, one pass", "dim"))
        memory = (
            (
                f"--optimizer {optimizer}",
                *(human_bytes(parts[key]) for key in ("weights", "gradients", "optimizer", "total")),
            )
            for optimizer, parts in r["training_memory"].items()
        )
        headings = ("training memory", "weights", "gradients", "optimizer", "in all")
        show_rows(console, headings, memory, right=(1, 2, 3, 4))
        console.print(data("fp32 weights and gradients; activations come on top", "dim"))


def show_training_plan(records: list[Record]) -> None:
    """The plan of a judge's training: its images, its steps and its memory."""
    console = PlainConsole()
    for r in records:
        console.print(data(f"plan for {r['judge']}", "bold").append(" (nothing is written)", "not bold"))
        parts = (("to learn from", ""), ("held out", "held_out_"))
        rows = [
            (what, *(human_count(r[f"{prefix}{name}"]) for name in ("prompts", "images", "right", "wrong")))
            for what, prefix in parts
        ]
        show_rows(console, ("", "prompts", "images", "right", "wrong"), rows, right=(1, 2, 3, 4))
        console.print(f"{r['steps']:,} steps of {r['batch_size']} images")
        memory = r["training_memory"]
        names = ("weights", "gradients", "optimizer", "total")
        headings = ("training memory", "weights", "gradients", "optimizer", "in all")
        row = (f"--optimizer {r['optimizer']}", *(human_bytes(memory[name]) for name in names))
        show_rows(console, headings, [row], right=(1, 2, 3, 4))
        trained, every = (human_count(r[name]) for name in ("trained_parameters", "parameters"))
        console.print(data(f"{trained} of {every} parameters are trained; activations come on top", "dim"))


def _size(record: Record) -> str:
    resolution = record["resolution"]
    pixels = f"{resolution.replace('x', ' x ')} pixels, " if resolution else ""
    return f"{pixels}{record['image_tokens']:,} image and {record['text_tokens']} text tokens"
