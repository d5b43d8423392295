"""Records for people: tables and bars on a terminal, where a pipe would get JSON."""

from __future__ import annotations

from rich.text import Text

from sanactl.cli.frame.console import PlainConsole, data, figure, show_rows
from sanactl.records.records import Record

__all__ = [
    "human_bytes",
    "human_count",
    "show_blocks",
    "show_checkpoints",
    "show_images",
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
    """Path, prompt, verdict and rank."""
    rows = []
    for r in records:
        verdict = data(r.get("verdict", ""))
        if "judge_score" in r:
            verdict.append_text(data(f" ({figure(r['judge_score'], '+.2f')})"))
        if "correct" in r:
            verdict.append(" ").append(*(("correct", "green") if r["correct"] else ("wrong", "red")))
        rows.append((data(r["path"]), data(r["prompt"], longest=60), verdict, data(r.get("rank", ""))))
    show_rows(PlainConsole(), ("image", "prompt", "verdict", "rank"), rows)
