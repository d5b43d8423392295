"""Synthetic checkpoints of any size, and the time and memory that programs take, measured in turn.

`sanactl.bench.surgery` has what is compared.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sanactl.checkpoint.sana import CONFIG_DEFAULTS, check_config, expected_tensors
from sanactl.checkpoint.write import Normal, Plan, PlannedTensor, write_checkpoint
from sanactl.errors import SanactlError

__all__ = [
    "SANA_1_6B",
    "TINY",
    "compare",
    "disk_size",
    "measure",
    "remove",
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


def measure(command: Sequence[str], cwd: Path | None = None) -> dict[str, float]:
    """Run a program and take its time and memory.

    Returns:
        seconds of wall time, cpu_seconds, and peak_mb, the largest resident set in MB (10^6 bytes).

    Raises:
        SanactlError: it failed; has the last line that it said.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as said:
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        try:
            peak, usage = _watched(process)
        except BaseException:
            process.kill()
            process.wait()
            raise
        seconds = time.monotonic() - started
        if process.returncode:
            said.seek(0)
            last = (said.read().decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            raise SanactlError(f"{command[0]} failed with code {process.returncode}: {last}")
    return {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_mb": peak * 1024 / 1e6}


def _watched(process: subprocess.Popen[bytes]) -> tuple[int, Any]:
    """Waits for a process; its largest resident set in KiB and its resource usage."""
    # The kernel's ru_maxrss counts this process too, as it was when it forked; VmHWM starts anew with the program.
    peak = 0
    while True:
        with contextlib.suppress(OSError):
            found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
            peak = max(peak, int(found[1]) if found else 0)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            process.returncode = os.waitstatus_to_exitcode(status)
            return peak, usage
        time.sleep(0.002)


def compare(
    contenders: Mapping[str, Callable[[Path], Sequence[str]]],
    target: Path,
    rounds: int = 3,
    tick: Callable[[str], None] = lambda name: None,
) -> list[dict[str, Any]]:
    """Measure contenders in turn, round by round, so that a slow minute of the machine hits all alike.

    Args:
        contenders: name to a function from the target's path to the command that writes it. The first is the measure
            for the others.
        target: written and removed each time. The programs run in its folder.
        rounds: times each is run.
        tick: called with the name of each contender after its run.

    Returns:
        a row a contender: name, bytes of the output, seconds (median), fastest, cpu_seconds, peak_mb, gb_per_second, and ratio, the median
        over the rounds of its time over the first one's in the same round.
    """
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    size = 0
    for _ in range(rounds):
        for name, command in contenders.items():
            remove(target)
            runs[name].append(measure(command(target), target.parent))
            size = disk_size(target)
            tick(name)
    remove(target)
    first = [run["seconds"] for run in next(iter(runs.values()))]
    rows = []
    for name, done in runs.items():
        seconds = [run["seconds"] for run in done]
        rows.append(
            {
                "name": name,
                "bytes": size,
                "seconds": statistics.median(seconds),
                "fastest": min(seconds),
                "cpu_seconds": statistics.median(run["cpu_seconds"] for run in done),
                "peak_mb": max(run["peak_mb"] for run in done),
                "gb_per_second": size / 1e9 / statistics.median(seconds),
                "ratio": statistics.median(mine / other for mine, other in zip(seconds, first, strict=True)),
            }
        )
    return rows


def disk_size(path: Path) -> int:
    """Bytes of a file or of all files of a folder; 0 where there is none."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*"))
    return path.stat().st_size if path.exists() else 0


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
