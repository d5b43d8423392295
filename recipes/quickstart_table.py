"""The quickstart's last lines: its scores beside the paper's, with 95 % intervals, and what they do not show."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def scores(file: Path) -> dict[str, dict[str, Any]]:
    """The score records of a file by metric."""
    with file.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return {r["metric"]: r for r in records if r["kind"] == "score"}


def shown(value: float, interval: list[float] | None) -> str:
    """A score with its interval, which there is from five prompts on."""
    return f"{value:.3f}" + (f"  [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def last_loss(file: Path) -> float:
    """Mean training loss over the last fifth of the steps."""
    with file.open(encoding="utf-8") as lines:
        losses = [json.loads(line)["loss"] for line in lines]
    tail = losses[-max(len(losses) // 5, 1) :]
    return sum(tail) / len(tail)


def overlap(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two scores' intervals share a value: then the difference may be chance."""
    if a["ci"] is None or b["ci"] is None:
        return True
    return bool(a["ci"][0] <= b["ci"][1] and b["ci"][0] <= a["ci"][1])


def main(folder: Path) -> None:
    names = (
        "base",
        "fresh",
        "scratch",
        "grown",
        "pruned-d20",
        "recovered-d20",
        "pruned-d10",
        "recovered-d10",
    )
    found = {name: scores(folder / f"{name}.geneval.jsonl")["geneval"] for name in names}
    scaling = scores(folder / "scaling.jsonl")["scaling"]
    curves = scaling["curves"]
    images = curves["oracle"][-1]["at"]
    table = Table(
        "", "built-in world, GenEval [95 %]", "SANA-1.5, GenEval", title="the quickstart beside the paper"
    )

    def row(label: str, name: str, paper: str) -> None:
        table.add_row(label, shown(found[name]["value"], found[name]["ci"]), paper)

    row("base, 10 blocks", "base", "0.66   SANA-1.0 1.6B, 20 blocks (table 1)")
    table.add_section()
    row("grown to 30 blocks, 60 steps", "fresh", "2.5 x as fast to 0.70 as")
    row("30 blocks from scratch, 60 steps", "scratch", "  from scratch (figure 2)")
    row("grown to 30 blocks, trained longer", "grown", "0.693  4.8B, 60 blocks (table 3)")
    table.add_section()
    row("pruned to 20 blocks (2/3)", "pruned-d20", "0.673  3.2B (table 3)")
    row("  + 100 steps", "recovered-d20", "0.684")
    row("pruned to 10 blocks (1/3)", "pruned-d10", "0.571  1.6B (table 3)")
    row("  + 100 steps", "recovered-d10", "0.672")
    table.add_section()
    table.add_row("one image", shown(scaling["value"], scaling["ci"]), "0.81   4.8B (table 2)")
    if "judge" in curves:
        best = curves["judge"][-1]
        table.add_row(
            f"best of {images} by the judge",
            shown(best["value"], best["ci"]),
            "0.96   best of 2048 (figure 8)",
        )
    best = curves["oracle"][-1]
    table.add_row(
        f"best of {images} by the detector", shown(best["value"], best["ci"]), "       (upper bound)"
    )
    console = Console(width=118)
    console.print(table)
    fresh, scratch = (last_loss(folder / f"{name}-ft.train.jsonl") for name in ("fresh", "scratch"))
    console.print(f"training loss after equal steps: grown {fresh:.3f}, from scratch {scratch:.3f}")
    for before, after in (("pruned-d20", "recovered-d20"), ("pruned-d10", "recovered-d10")):
        if overlap(found[before], found[after]):
            console.print(
                f"{before} and {after}: their intervals overlap; at this size the difference may be chance"
            )
    if found["grown"]["value"] <= found["base"]["value"]:
        console.print(
            "grown is not above base: it lost two blocks of ten and had 1,400 small steps; the paper's 100,000"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
