"""Showing records on a terminal as tables and bars; a pipe gets JSON instead."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from sanactl.cli.frame.console import PlainConsole, data, figure, show_rows
from sanactl.files.human import human_bytes, human_count
from sanactl.records.records import Record

__all__ = [
    "show_blocks",
    "show_checkpoints",
    "show_dataset",
    "show_images",
    "show_prompts",
]

BAR_WIDTH = 40


def show_checkpoints(records: list[Record]) -> None:
    """Path, depth, parameters, size and the beginning of the digest."""
    rows = [
        (
            data(r["path"]),
            str(r["blocks"]),
            human_count(r["parameters"]),
            human_bytes(r["bytes"]),
            data(r["digest"][7:19]),
        )
        for r in records
    ]
    show_rows(PlainConsole(), ("checkpoint", "blocks", "parameters", "size", "digest"), rows)


def show_blocks(records: list[Record]) -> None:
    """Block importance as bars, as in figure 5."""
    console = PlainConsole()
    largest = max((r["importance"] for r in records), default=0.0) or 1.0
    width = max(min(BAR_WIDTH, console.width - 32), 0)
    rows = []
    for r in records:
        bar = "█" * max(round(width * r["importance"] / largest), 0)
        error = f" ± {r['stderr']:.4f}" if r.get("stderr") is not None else ""
        rows.append((str(r["block"]), f"{r['importance']:.4f}{error}", Text(bar, style="cyan")))
    show_rows(console, ("block", "importance", ""), rows)


def show_images(records: list[Record]) -> None:
    """Path, prompt, verdict and rank. Ranks are shown from 1; in records they count from 0."""
    rows = []
    for r in records:
        verdict = data(r.get("verdict", ""))
        if "judge_score" in r:
            verdict.append_text(data(f" ({figure(r['judge_score'], '+.2f')})"))
        if "correct" in r:
            verdict.append(" ").append(*(("correct", "green") if r["correct"] else ("wrong", "red")))
        rank = r["rank"] + 1 if type(r.get("rank")) is int else ""
        rows.append((data(r["path"]), data(r["prompt"], longest=60), verdict, data(rank)))
    show_rows(PlainConsole(), ("image", "prompt", "verdict", "rank"), rows)


def show_prompts(records: list[Record]) -> None:
    """Id, prompt and what a guard found."""
    rows = []
    for r in records:
        guard = data(r.get("guard_policy", ""))
        if "guard_probability" in r:
            guard.append_text(data(f" ({figure(r['guard_probability'], '.3f')})"))
        if flags := r.get("guard_flags"):
            guard.append_text(data(f" {', '.join(flags)}"))
        rows.append((data(r.get("id", "")), data(r["prompt"], longest=80), guard))
    show_rows(PlainConsole(), ("id", "prompt", "most likely"), rows)


def show_dataset(made: dict[str, Any]) -> None:
    """An export's folder, format, images, shards and size."""
    row = (
        data(made["path"]),
        data(made["to"]),
        f"{made['images']:,}",
        f"{made['shards']:,}",
        human_bytes(made["bytes"]),
    )
    show_rows(PlainConsole(), ("dataset", "format", "images", "shards", "size"), [row])
