"""Records for people: tables and bars on a terminal, where a pipe would get JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from sanactl.io.records import Record

__all__ = [
    "human_bytes",
    "human_count",
    "show_blocks",
    "show_checkpoints",
    "show_images",
    "show_scores",
]

BAR_WIDTH = 40


def human_count(number: float) -> str:
    """1,604,462,752 as 1.6B; at most three digits."""
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(number) >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:g}"


def human_bytes(number: float) -> str:
    """Bytes in decimal units, as file managers and the Hub show them."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(number) >= limit:
            return f"{number / limit:.3g} {unit}"
    return f"{number:.0f} B"


def _print(*things: Any) -> None:
    console = Console()
    for thing in things:
        console.print(thing)


def show_checkpoints(records: list[Record]) -> None:
    table = Table("checkpoint", "blocks", "parameters", "size", "digest", box=None)
    for r in records:
        table.add_row(
            r["path"],
            str(r["blocks"]),
            human_count(r["parameters"]),
            human_bytes(r["bytes"]),
            r["digest"][7:19],
        )
    _print(table)


def show_blocks(records: list[Record]) -> None:
    """Block importance as bars, as in figure 5."""
    largest = max((r["importance"] for r in records), default=0.0) or 1.0
    table = Table("block", "importance", "", box=None)
    for r in records:
        bar = "█" * max(round(BAR_WIDTH * r["importance"] / largest), 0)
        error = f" ± {r['stderr']:.4f}" if r.get("stderr") is not None else ""
        table.add_row(str(r["block"]), f"{r['importance']:.4f}{error}", f"[cyan]{bar}[/cyan]")
    _print(table)


def show_images(records: list[Record]) -> None:
    table = Table("image", "prompt", "verdict", "rank", box=None)
    for r in records:
        verdict = r.get("verdict", "")
        if "judge_score" in r:
            verdict = f"{verdict} ({r['judge_score']:+.2f})"
        if "correct" in r:
            verdict += " [green]correct[/green]" if r["correct"] else " [red]wrong[/red]"
        table.add_row(str(r["path"]), str(r["prompt"])[:60], verdict, str(r.get("rank", "")))
    _print(table)


def show_scores(records: list[Record]) -> None:
    """A score record as a table of tasks with its confidence intervals; image records before it are counted only."""
    for r in records:
        if r["kind"] != "score" or "tasks" not in r:
            continue
        title = f"{r['metric']} of {r.get('checkpoint') or 'these images'}, {r.get('images', '?')} images"
        table = Table("task", "score", "95 % interval", "images", title=title, box=None)
        for tag, task in r["tasks"].items():
            low, high = task["ci"]
            table.add_row(tag, f"{task['score']:.3f}", f"{low:.3f} - {high:.3f}", str(task["images"]))
        low, high = r["ci"]
        table.add_row(
            "[bold]overall[/bold]", f"[bold]{r['overall']:.3f}[/bold]", f"{low:.3f} - {high:.3f}", ""
        )
        _print(table)
