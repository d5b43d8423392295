"""Optimizers by name, and that they need torch alone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from sanactl.errors import UsageError
from sanactl.optim import CAME, OPTIMIZERS, CAME8bit, build_optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_name_builds_and_steps(name: str) -> None:
    if name == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    model = nn.Linear(160, 130)
    optimizer = build_optimizer(name, model.parameters(), 1e-3, weight_decay=0.01)
    before = model.weight.detach().clone()
    model(torch.ones(2, 160)).sum().backward()
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 1e-3
    assert not torch.equal(before, model.weight)


def test_names_give_the_classes() -> None:
    params = [nn.Parameter(torch.ones(3))]
    assert type(build_optimizer("came", params, 1e-3)) is CAME
    assert type(build_optimizer("came8bit", params, 1e-3, scheme="linear")) is CAME8bit


def test_faults_are_named() -> None:
    params = [nn.Parameter(torch.ones(3))]
    with pytest.raises(UsageError, match="unknown optimizer 'lion'; use one of came8bit, came"):
        build_optimizer("lion", params, 1e-3)
    with pytest.raises(UsageError, match=r"came does not take these options.*block_size"):
        build_optimizer("came", params, 1e-3, block_size=3)


def test_bitsandbytes_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(UsageError, match="needs the package bitsandbytes"):
        build_optimizer("adamw8bit", [nn.Parameter(torch.ones(3))], 1e-3)


def test_torch_is_all_that_is_imported() -> None:
    """Outside this project, only the standard library and torch with what torch brings."""
    program = """
import sys, torch
before = set(sys.modules)
import sanactl.optim
more = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(more - {"sanactl", "torch"} - set(sys.stdlib_module_names)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
