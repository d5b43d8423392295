"""A new optimizer is one entry in the table: here it is SGD with a memory."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sanactl.checkpoint.open import open_checkpoint
from sanactl.optim.table import OPTIMIZERS, OptimizerEntry
from sanactl.training.settings import FinetuneSettings
from tests.program import Program


class Toy(torch.optim.SGD):
    """SGD that keeps one velocity a parameter, and counts its steps."""

    taken = 0

    def __init__(self, params: Any, lr: float, momentum: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def step(self, closure: Any = None) -> Any:
        Toy.taken += 1
        assert self.defaults["momentum"] == 0.75
        return super().step(closure)


def toy_bytes(shapes: Sequence[tuple[int, ...]], weight_bytes: int) -> int:
    return sum(weight_bytes * math.prod(shape) for shape in shapes)


TOY = OptimizerEntry("toy", Toy, toy_bytes, defaults={"momentum": 0.75})


def test_a_toy_optimizer_trains_and_is_counted(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(OPTIMIZERS, TOY.name, TOY)  # the one line
    monkeypatch.setattr(Toy, "taken", 0)
    known = sanactl.fails("finetune", tiny_file, "--steps", "2", "--optimizer", "toys", code=2)
    assert known.endswith("choose one of came8bit, came, adamw, adamw8bit, toy")
    sanactl("finetune", tiny_file, "--steps", "2", "--batch-size", "2", "--optimizer", "toy", "-o", "out.st")
    assert Toy.taken == 2
    assert open_checkpoint("out.st").lineage[-1]["arguments"]["optimizer"] == "toy"
    (line,) = [line for line in sanactl.said.splitlines() if "training needs about" in line]
    size = 4 * open_checkpoint(tiny_file).num_parameters
    assert f"optimizer {size / 1e6:.3g} MB" in line
    (plan,) = sanactl("grow", tiny_file, "--to", "4", "--dry-run")
    assert plan["training_memory"]["toy"]["optimizer"] == 4 * plan["parameters_after"]


def test_the_table_is_read_without_torch() -> None:
    program = """
import sys
import sanactl.optim
from sanactl.surgery.memory import training_memory
assert training_memory({"w": (300, 200)}, "came8bit")["optimizer"] == 60_000 + 30 * 5 + 4 * 2 * 500
print(sorted({"torch", "typer", "transformers", "triton"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_scheme_is_given_by_either_name(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program
) -> None:
    monkeypatch.chdir(tmp_path)
    short = ("finetune", tiny_file, "--steps", "1", "--batch-size", "2")
    sanactl(*short, "--scheme", "linear", "-o", "new.st")
    sanactl(*short, "--code", "linear", "-o", "old.st")
    new, old = (open_checkpoint(name).lineage[-1]["arguments"] for name in ("new.st", "old.st"))
    assert new == old
    assert new["scheme"] == "linear"
    said = sanactl.fails(*short, "--scheme", "zero", "--optimizer", "came", code=2)
    assert "--scheme is for --optimizer came8bit, and this is came" in said
    assert "--scheme fp4: choose one of" in sanactl.fails(*short, "--code", "fp4", code=2)


def test_a_run_is_the_same_as_before_the_scheme_was_called_so() -> None:
    deciding = FinetuneSettings(scheme="linear").deciding()
    assert deciding["code"] == "linear"
    assert "scheme" not in deciding
