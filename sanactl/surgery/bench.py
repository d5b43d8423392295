"""Synthetic checkpoints of any size, and the time and memory of surgery against `cp` and the diffusers script.

    python -m sanactl.surgery.bench FOLDER [scale]

writes and removes a few files in FOLDER (about 22 GB at scale 1, the published 20 and 60 blocks) and prints a table.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sanactl.io.ckpt_sana import CONFIG_DEFAULTS, check_config, expected_tensors
from sanactl.io.writer import Normal, Plan, PlannedTensor, write_checkpoint

__all__ = [
    "SANA_1_6B",
    "TINY",
    "compare",
    "measure",
    "surgery_table",
    "synthetic_checkpoint",
    "synthetic_plan",
]

SANA_1_6B: Mapping[str, Any] = {
    **CONFIG_DEFAULTS,
    "qk_norm": "rms_norm_across_heads",
}  # 20 blocks, 1.6 B parameters
TINY: Mapping[str, Any] = {
    **CONFIG_DEFAULTS, "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 8,
    "num_layers": 4, "num_cross_attention_heads": 2, "cross_attention_head_dim": 8, "cross_attention_dim": 16,
    "caption_channels": 12, "sample_size": 8, "qk_norm": "rms_norm_across_heads",
}  # fmt: skip


def synthetic_plan(
    config: Mapping[str, Any] = TINY, dtype: str = "F32", seed: int = 0, sigma: float = 0.1
) -> Plan:
    """The plan of a checkpoint of this shape with random weights N(0, sigma^2), for tests and measurements."""
    full = check_config({**config, "_class_name": "SanaTransformer2DModel"}, "the config")
    tensors = {
        name: PlannedTensor(dtype, shape, Normal(sigma, seed, name))
        for name, shape in expected_tensors(full).items()
    }
    return Plan(tensors, {key: value for key, value in full.items() if key != "_class_name"})


def synthetic_checkpoint(
    target: str | os.PathLike[str],
    config: Mapping[str, Any] = TINY,
    dtype: str = "F32",
    seed: int = 0,
    **options: Any,
) -> Path:
    """Write `synthetic_plan` to a file or folder; `options` go to `write_checkpoint`."""
    return write_checkpoint(synthetic_plan(config, dtype, seed), target, **options)


def measure(command: Sequence[str]) -> dict[str, float]:
    """Run a program and take its time and memory.

    Returns:
        seconds of wall time, cpu_seconds, and peak_mb, the largest resident set in MB (10^6 bytes).

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    # The kernel's ru_maxrss counts this process too, as it was when it forked; VmHWM starts anew with the program.
    peak = 0
    while True:
        with contextlib.suppress(OSError):
            found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
            peak = max(peak, int(found[1]) if found else 0)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        time.sleep(0.005)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_mb": peak * 1024 / 1e6}


def compare(
    contenders: Mapping[str, Callable[[Path], Sequence[str]]], target: Path, rounds: int = 3
) -> list[dict[str, Any]]:
    """Measure contenders in turn, round by round, so that a slow minute of the machine hits all alike.

    Args:
        contenders: name to a function from the target's path to the command that writes it. The first is the measure
            for the others.
        target: written and removed each time.
        rounds: times each is run.

    Returns:
        a row a contender: name, seconds (median), fastest, cpu_seconds, peak_mb, gb_per_second, and ratio, the median
        over the rounds of its time over the first one's in the same round.
    """
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    size = 0
    for _ in range(rounds):
        for name, command in contenders.items():
            _remove(target)
            runs[name].append(measure(command(target)))
            size = _size(target)
    _remove(target)
    first = [run["seconds"] for run in next(iter(runs.values()))]
    rows = []
    for name, done in runs.items():
        seconds = [run["seconds"] for run in done]
        rows.append(
            {
                "name": name,
                "seconds": statistics.median(seconds),
                "fastest": min(seconds),
                "cpu_seconds": statistics.median(run["cpu_seconds"] for run in done),
                "peak_mb": max(run["peak_mb"] for run in done),
                "gb_per_second": size / 1e9 / statistics.median(seconds),
                "ratio": statistics.median(mine / other for mine, other in zip(seconds, first, strict=True)),
            }
        )
    return rows


def surgery_table(
    folder: Path, scale: float = 1.0, rounds: int = 3, diffusers: bool = False
) -> list[dict[str, Any]]:
    """Grow 20 blocks to 60 and prune 60 to 30, bf16, each against a flushed `cp` of a file of the output's size.

    Args:
        folder: on the disk to be measured; used for several files of up to 9.4 GB.
        scale: of the numbers of blocks (0.25: 5 to 15, and 15 to 8).
        rounds: of `compare`.
        diffusers: also prune with from_pretrained and save_pretrained, which holds the whole model.
    """
    blocks = {
        "base": max(3, round(20 * scale)),
        "deep": max(4, round(60 * scale)),
        "pruned": max(2, round(30 * scale)),
    }
    rows: list[dict[str, Any]] = []
    base = synthetic_checkpoint(
        folder / "bench-base.st", {**SANA_1_6B, "num_layers": blocks["base"]}, "BF16", force=True
    )
    deep = folder / "bench-deep.st"
    pruned = folder / "bench-pruned.st"
    grow = f"plan_grow(open_checkpoint({str(base)!r}), {blocks['deep']})"
    prune = f"plan_prune(open_checkpoint({str(deep)!r}), range({blocks['pruned']}))"
    for task, plan, reference in (("grow", grow, deep), ("prune", prune, pruned)):
        _remove(reference)
        measure(_surgery(plan, reference))
        target = folder / ("bench-target" if task == "prune" and diffusers else "bench-target.st")
        contenders: dict[str, Callable[[Path], Sequence[str]]] = {
            "cp": partial(_cp, reference),
            "sanactl": partial(_surgery, plan),
        }
        if task == "prune" and diffusers:
            source = write_checkpoint(_copy(deep), folder / "bench-folder", force=True)
            contenders["diffusers"] = partial(_diffusers, source, blocks["pruned"])
        rows += [{"task": task, "blocks": blocks, **row} for row in compare(contenders, target, rounds)]
    for path in (base, deep, pruned, folder / "bench-folder"):
        _remove(path)
    return rows


def _cp(source: Path, target: Path) -> list[str]:
    return ["sh", "-c", 'cp "$0" "$1" && sync "$1"', str(source), str(target)]


def _surgery(plan: str, target: Path) -> list[str]:
    code = (
        "from sanactl.io.checkpoint import open_checkpoint\n"
        "from sanactl.io.writer import write_checkpoint\n"
        "from sanactl.surgery.grow import plan_grow\n"
        "from sanactl.surgery.prune import plan_prune\n"
        f"write_checkpoint({plan}, {str(target)!r})\n"
    )
    return [sys.executable, "-c", code]


def _diffusers(source: Path, keep: int, target: Path) -> list[str]:
    code = (
        "import torch\n"
        "from diffusers import SanaTransformer2DModel\n"
        f"model = SanaTransformer2DModel.from_pretrained({str(source)!r}, torch_dtype=torch.bfloat16)\n"
        f"model.transformer_blocks = model.transformer_blocks[:{keep}]\n"
        f"model.register_to_config(num_layers={keep})\n"
        f"model.save_pretrained({str(target)!r}, max_shard_size='5GB')\n"
    )
    return [sys.executable, "-c", code]


def _copy(path: Path) -> Plan:
    from sanactl.io.checkpoint import open_checkpoint
    from sanactl.surgery.convert import plan_convert

    return plan_convert(open_checkpoint(path), "folder")


def _size(path: Path) -> int:
    return sum(f.stat().st_size for f in path.rglob("*")) if path.is_dir() else path.stat().st_size


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    for line in surgery_table(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 1.0):
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()})
