"""All measurements that need a GPU, in one run of a few minutes: `python -m sanactl.bench.gpu_check`.

The cheapest and most useful parts come first. The run can be stopped at any time, because each row is on the disk as soon
as it is known; the same command then goes on with the parts that were not done. It needs torch, triton, transformers,
safetensors, numpy, and diffusers with Pillow and requests. The part `tests` needs pytest, and the scores of the part
`world` need scipy.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sanactl.bench.rows import read_rows, tables
from sanactl.bench.runner import Part, Results, run_parts

__all__ = ["PARTS", "main"]

# Of each part: about how many seconds it takes, and it is not begun with less; the most that it may take; its contents.
# `sanactl.bench.parts` runs each part in a process of its own.
PARTS: dict[str, tuple[float, float, str]] = {
    "machine": (15, 40, "versions, memory, copy bandwidth, matrix products"),
    "kernels": (40, 75, "Triton kernels compared with torch, on matrices of SANA 1.6B"),
    "optim-1.6b": (40, 80, "a step of each optimizer on all blocks of the 1.6B, bf16; in a CUDA graph, too"),
    "sample-1.6b": (45, 75, "images a second of the 1.6B, beside SanaPipeline"),
    "train-1.6b": (45, 75, "a training step of the 1.6B with each optimizer"),
    "optim-4.8b": (40, 80, "a step of each optimizer on all blocks of the 4.8B, bf16; in a CUDA graph, too"),
    "tests": (60, 100, "pytest -m gpu"),
    "sample-4.8b": (60, 100, "images a second of the 4.8B, beside SanaPipeline"),
    "sample-0.6b": (35, 60, "images a second of the 0.6B, beside SanaPipeline"),
    "world": (120, 200, "the whole method on the built-in world, with longer trainings"),
    "train-4.8b": (40, 75, "a training step of the 4.8B with CAME-8bit"),
    "optim-1.6b-fp32": (30, 60, "a step of each optimizer on all blocks of the 1.6B, fp32"),
}
MINUTES = 9.0
# A trial on the CPU: Triton's interpreter, the tests of GPUs on the CPU as well, and more time for a busy machine.
SMALL_TIME = 5
SMALL_NAME = "CPU, small"
# When the script began, in seconds of the clock: unpacking wheels and finding the GPU are part of its minutes.
BEGAN = "SANACTL_BENCH_BEGAN"
FIND_CARD = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
FIND_SECONDS = 90
SMALL = (("CUDA_VISIBLE_DEVICES", ""), ("TRITON_INTERPRET", "1"), ("SANACTL_TEST_DEVICE", "cpu"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts. Returns 0 if every part was done, 1 if not, 2 for wrong options."""
    began = time.monotonic() - _gone()
    options = _parser().parse_args(arguments)
    if options.table is not None:
        if not options.table.is_file():
            print(f"--table {options.table}: no such file", file=sys.stderr)
            return 2
        print(tables(read_rows(options.table)), end="")
        return 0
    if not 0 < options.minutes < math.inf:
        print(f"--minutes has to be above 0, got {options.minutes:g}", file=sys.stderr)
        return 2
    chosen = list(PARTS) if options.only is None else options.only.split(",")
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        print(f"unknown part {unknown[0]!r}; the parts are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    on = SMALL_NAME if options.small else _card()
    if on is None:
        print("no CUDA device; --small tries the script on the CPU", file=sys.stderr)
        return 1
    # If the run is stopped, the running part is stopped, too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    results = Results(options.out)
    parts = [_part(name, results.rows, small=options.small) for name in chosen]
    seconds = options.minutes * 60 * (SMALL_TIME if options.small else 1)
    whole = run_parts(parts, results, seconds=seconds, on=on, began=began)
    print(tables(read_rows(results.rows)), end="")
    return 0 if whole else 1


def _gone() -> float:
    """Seconds since the script began."""
    try:
        return min(600.0, max(0.0, time.time() - float(os.environ[BEGAN])))
    except (KeyError, ValueError):
        return 0.0


def _card() -> str | None:
    """The name of the GPU, or None if there is none.

    Another process looks: this one would keep memory of the GPU all the time, and a driver can hang.
    """
    try:
        found = subprocess.run(
            [sys.executable, *(["-S"] if sys.flags.no_site else []), "-c", FIND_CARD],
            stdout=subprocess.PIPE,
            text=True,
            timeout=FIND_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None
    return found.stdout.strip() or None


def _part(name: str, rows: Path, *, small: bool) -> Part:
    command = ["-m", "sanactl.bench.parts", name, str(rows.absolute()), *(["--small"] if small else [])]
    least, most, _ = PARTS[name]
    times = SMALL_TIME if small else 1
    return Part(name, most * times, command, SMALL if small else (), 0.0 if small else least)


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:15} {most:4.0f} s  {what}" for name, (_, most, what) in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m sanactl.bench.gpu_check",
        description=__doc__,
        epilog=f"parts in their order, with the most seconds that each may take:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out = "folder for results.jsonl, table.md and log.txt; parts that it has are not measured again"
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help=out)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all parts together")
    parser.add_argument("--only", help="some parts, separated by commas")
    parser.add_argument("--small", action="store_true", help="tiny models on the CPU: a trial")
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="print the rows of FILE as tables, no more"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
