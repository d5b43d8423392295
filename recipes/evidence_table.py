"""The evidence recipe's table: means and standard deviations over seeds, from the files that its commands left."""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

WINDOW = (
    24  # steps in a running mean of the loss: one step's loss says more of its noise levels than of the model
)


def losses(file: Path) -> list[float]:
    """The loss of every step of a run."""
    with file.open(encoding="utf-8") as lines:
        return [float(json.loads(line)["loss"]) for line in lines]


def last_tenth(curve: list[float]) -> float:
    return statistics.fmean(curve[-max(len(curve) // 10, 1) :])


def steps_to(curve: list[float], target: float) -> int:
    """The first step whose running mean is at or below `target`; the number of steps where none is."""
    for end in range(WINDOW, len(curve) + 1):
        if statistics.fmean(curve[end - WINDOW : end]) <= target:
            return end
    return len(curve)


def geneval(file: Path) -> float | None:
    """The overall score in a file of `eval geneval`, or None where there is no such file."""
    if not file.exists():
        return None
    with file.open(encoding="utf-8") as lines:
        return next(float(r["value"]) for r in map(json.loads, lines) if r.get("metric") == "geneval")


def spread(values: Iterable[float | None], form: str = ".3f") -> str:
    """Mean and standard deviation; "-" where nothing was measured."""
    there = [v for v in values if v is not None]
    if not there:
        return "-"
    deviation = f" ± {statistics.stdev(there):{form}}" if len(there) > 1 else ""
    return f"{statistics.fmean(there):{form}}{deviation}"


def seeds_of(folder: Path, stem: str) -> list[str]:
    found = (re.fullmatch(rf"{re.escape(stem)}-(\d+)\.train\.jsonl", f.name) for f in folder.iterdir())
    return sorted(match[1] for match in found if match)


def growth(folder: Path) -> Table | None:
    """Figures 2 and 7: loss and score after equal steps, and how soon the loss is where scratch ends."""
    names = {
        "partial": "partial: the last 2 dropped, new blocks the identity",
        "partial-keep-all": "partial, nothing dropped",
        "cyclic": "cyclic",
        "replicate": "replicate",
        "scratch": "from scratch",
    }
    curves = {
        name: {
            s: losses(folder / f"growth-{name}-{s}.train.jsonl") for s in seeds_of(folder, f"growth-{name}")
        }
        for name in names
    }
    if not curves["scratch"]:
        return None
    length = len(next(iter(curves["scratch"].values())))
    target = {s: statistics.fmean(curve[-WINDOW:]) for s, curve in curves["scratch"].items()}
    table = Table(
        "10 blocks become 30", "loss, last tenth", "steps to scratch's last loss", "GenEval", "seeds",
        title=f"growth against scratch, {length} equal steps (figures 2 and 7)",
    )  # fmt: skip
    for name, label in names.items():
        runs = {s: c for s, c in curves[name].items() if s in target}
        table.add_row(
            label,
            spread(last_tenth(c) for c in runs.values()),
            spread((steps_to(c, target[s]) for s, c in runs.items()), ".0f"),
            spread(geneval(folder / f"growth-{name}-{s}.geneval.jsonl") for s in runs),
            str(len(runs)),
        )
    return table


def optimizers(folder: Path) -> Table | None:
    """Figure 6: the loss under four optimizers, and the bytes that they keep."""
    table = Table(
        "from random weights, 10 blocks", "learning rate", "loss, last tenth", "state, bytes a parameter", "seeds",
        title="optimizers (figure 6)",
    )  # fmt: skip
    for name in ("adamw", "adamw8bit", "came", "came8bit"):
        stem = f"optimizer-{name}"
        seeds = [s for s in seeds_of(folder, stem) if (folder / f"{stem}-{s}.done.jsonl").exists()]
        if not seeds:
            continue
        curves = [losses(folder / f"{stem}-{s}.train.jsonl") for s in seeds]
        done = json.loads((folder / f"{stem}-{seeds[0]}.done.jsonl").read_text(encoding="utf-8"))
        with (folder / f"{stem}-{seeds[0]}.train.jsonl").open(encoding="utf-8") as lines:
            rate = max(float(json.loads(line)["lr"]) for line in lines)
        table.add_row(
            name,
            f"{rate:g}",
            spread(last_tenth(c) for c in curves),
            f"{done['optimizer_bytes'] / done['parameters']:.2f}",
            str(len(seeds)),
        )
    return table if table.row_count else None


def recovery(folder: Path) -> Table | None:
    """Table 3: pruned, and after 100 steps, without and with the unpruned parent as a teacher."""
    table = Table(
        "30 blocks pruned to", "no training", "+ 100 steps", "+ 100 steps, --teacher", "the paper", "seeds",
        title="GenEval after pruning (table 3)",
    )  # fmt: skip
    papers = {"20": "0.673 / 0.684 (3.2B)", "10": "0.571 / 0.672 (1.6B)"}
    for depth, paper in papers.items():
        seeds = seeds_of(folder, f"recovery-{depth}-alone")
        if not seeds:
            continue
        columns = [
            spread(geneval(folder / f"recovery-{depth}-{how}-{s}.geneval.jsonl") for s in seeds)
            for how in ("alone", "teacher")
        ]
        before = geneval(folder / f"pruned-{depth}.geneval.jsonl")
        table.add_row(depth, "-" if before is None else f"{before:.3f}", *columns, paper, str(len(seeds)))
    return table if table.row_count else None


PARTS: tuple[Callable[[Path], Table | None], ...] = (growth, optimizers, recovery)

if __name__ == "__main__":
    console = Console(width=118)
    for part in PARTS:
        made = part(Path(sys.argv[1]))
        if made is not None:
            console.print(made)
            console.print()
