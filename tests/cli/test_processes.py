"""Several processes under `torchrun`: one stdout, and what one process gives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.program import Program, snapshot

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
TORCHRUN += ["--rdzv-endpoint", "localhost:0", "-m", "sanactl"]


def two(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """A command in two processes on this machine, by gloo."""
    return subprocess.run(
        [*TORCHRUN, *arguments],
        input=stdin,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_two_processes_sample_as_one(place: Path, sanactl: Program) -> None:
    """The same images, records and folder; the prompts come through a pipe that both share."""
    prompts = "".join(
        json.dumps({"kind": "prompt", "prompt": f"a photo of {n} stars"}) + "\n" for n in range(7)
    )
    few = ("sample", "tiny.st", "-n", "3", "--steps", "2")
    records = sanactl(*few, stdin=prompts)
    alone = snapshot(place / "tiny-samples")
    shutil.move("tiny-samples", "alone")
    done = two(*few, stdin=prompts)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == records
    assert snapshot(place / "tiny-samples") == alone
    assert done.stderr.count("sampling: 21/21") <= 1
    journal = (place / ".sanactl/journal.jsonl").read_text().splitlines()
    assert len(journal) == 2


def test_two_processes_train_as_one(place: Path, sanactl: Program) -> None:
    """Also where the batch is no multiple of the processes: the gradient is the whole batch's mean."""
    few = (
        "finetune",
        "tiny.st",
        "--steps",
        "4",
        "-b",
        "5",
        "--optimizer",
        "adamw",
        "--lr",
        "1e-4",
        "--warmup",
        "1",
    )
    (one,) = sanactl(*few, "-o", "one.st")
    done = two(*few, "-o", "two.st")
    assert done.returncode == 0, done.stderr
    (record,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert record["loss"] == pytest.approx(one["loss"], rel=1e-3)
    curves = [
        [json.loads(line)["loss"] for line in Path(f"{name}.train.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)
    start, first, second = (load_file(f"{name}.st") for name in ("tiny", "one", "two"))
    moved = np.mean([np.abs(first[k].astype(float) - start[k]).mean() for k in start])
    apart = np.mean([np.abs(first[k].astype(float) - second[k]).mean() for k in start])
    assert apart < 0.05 * moved
    assert not list(place.glob(".*.training"))


def test_a_batch_that_cannot_be_shared(place: Path) -> None:
    done = two("finetune", "tiny.st", "--steps", "1", "-b", "1", "-o", "x.st")
    assert done.returncode != 0
    assert "cannot be shared by 2 processes" in done.stderr
    assert not (place / "x.st").exists()
