"""Running one part of `gpu_check` in this process: `python -m sanactl.bench.parts NAME ROWS [--small]`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from sanactl.bench.rows import Rows
from sanactl.bench.runner import heed_limits

__all__ = ["do_part"]

TINY = {"1.6b": "tiny", "4.8b": "tiny-deep", "0.6b": "tiny"}


def do_part(name: str, rows: Rows, *, small: bool) -> int:
    """Run the part and add its rows; returns the exit code.

    Args:
        name: one of `gpu_check.PARTS`: the measurement, a model and a dtype, joined by "-".
        small: tiny models on the CPU.
    """
    device = torch.device("cpu" if small else "cuda")
    kind, model, precision = [*name.split("-"), "", ""][:3]
    if kind == "machine":
        from sanactl.bench.machine import measure_machine

        measure_machine(rows, device, small=small)
    elif kind == "kernels":
        from sanactl.bench.kernels import measure_kernels

        measure_kernels(rows, device, small=small)
    elif kind == "tests":
        from sanactl.bench.marked_tests import run_marked_tests

        return run_marked_tests(rows, "gpu")
    elif kind == "optim":
        _optim(rows, device, model, precision, small)
    elif kind == "sample":
        _sample(rows, device, model, small)
    elif kind == "train":
        _train(rows, device, model, small)
    elif kind == "world":
        from sanactl.bench.world import SMALL_WORLD, World, measure_world

        measure_world(rows, device, rows.file.parent / "world", SMALL_WORLD if small else World())
    return 0


def _optim(rows: Rows, device: torch.device, model: str, precision: str, small: bool) -> None:
    from sanactl.bench.optimizers import measure_optimizers

    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    if small:
        measure_optimizers(rows, device, "tiny", dtype, blocks=1, steps=1)
    else:
        measure_optimizers(rows, device, model, dtype)


def _sample(rows: Rows, device: torch.device, model: str, small: bool) -> None:
    from sanactl.bench.sampling import measure_sampling

    if small:
        measure_sampling(rows, device, [TINY[model]], pixels=(64,), batches=(1, 2), steps=2, tiny=True)
    else:
        measure_sampling(rows, device, [model])


def _train(rows: Rows, device: torch.device, model: str, small: bool) -> None:
    from sanactl.bench.training import OPTIMIZERS, measure_training

    # For the 4.8B, AdamW's fp32 state takes 38 GB, and weights and gradients take as much.
    optimizers = ("came8bit",) if model == "4.8b" else OPTIMIZERS
    if small:
        measure_training(rows, device, TINY[model], optimizers=optimizers, batch=2, pixels=128, steps=1)
    else:
        measure_training(rows, device, model, optimizers=optimizers)


if __name__ == "__main__":
    heed_limits()
    sys.exit(do_part(sys.argv[1], Rows(Path(sys.argv[2]), sys.argv[1]), small="--small" in sys.argv[3:]))
