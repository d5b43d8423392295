"""An optimizer with its state in the machine's memory takes the steps of one without, and their states are interchangeable."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from sanactl.optim import build_optimizer
from sanactl.optim.offload import OffloadedState
from sanactl.optim.table import OPTIMIZERS

SHAPES = [(130, 130), (7,), (130, 200), (3, 1, 3, 3), (200, 130)]


class Toy:
    """Parameters of all kinds, an optimizer, and gradients that depend on the step alone."""

    def __init__(self, optimizer: str, offloaded: bool) -> None:
        generator = torch.Generator().manual_seed(0)
        self.parameters = [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in SHAPES]
        self.optimizer: Any = build_optimizer(optimizer, self.parameters, lr=1e-2, weight_decay=0.1)
        if offloaded:
            self.optimizer = OffloadedState(self.optimizer, chunk_bytes=4 * 130 * 201)

    def steps(self, first: int, last: int) -> None:
        for step in range(first, last):
            generator = torch.Generator().manual_seed(step)
            for number, p in enumerate(self.parameters):
                # One has no gradient in the first step.
                p.grad = None if (step, number) == (0, 2) else torch.randn(p.shape, generator=generator)
            self.optimizer.param_groups[0]["lr"] = 1e-2 / (1 + step)
            self.optimizer.step()
            assert all(p.grad is not None for p in self.parameters) or step == 0
            self.optimizer.zero_grad()


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return bool(a == b)


@pytest.mark.parametrize("optimizer", [name for name, entry in OPTIMIZERS.items() if entry.offloads])
def test_steps_and_states_are_those_of_the_plain_optimizer(optimizer: str) -> None:
    plain, moved = Toy(optimizer, False), Toy(optimizer, True)
    for toy in (plain, moved):
        toy.steps(0, 3)
    assert all(map(torch.equal, plain.parameters, moved.parameters))
    saved = {
        name: copy.deepcopy(toy.optimizer.state_dict()) for name, toy in (("plain", plain), ("moved", moved))
    }
    assert same(saved["plain"]["state"], saved["moved"]["state"])
    plain.steps(3, 5)
    # Either goes on from the other's state.
    for name, offloaded in (("plain", True), ("moved", False), ("moved", True)):
        again = Toy(optimizer, offloaded)
        again.steps(0, 3)
        again.optimizer.load_state_dict(copy.deepcopy(saved[name]))
        again.steps(3, 5)
        assert all(map(torch.equal, plain.parameters, again.parameters)), (name, offloaded)


def test_a_few_parameters_are_updated_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its state, which was fetched before; what lies on the CPU stays in one place."""
    toy = Toy("came8bit", True)
    toy.steps(0, 2)
    places = {id(t) for state in toy.optimizer.state.values() for t in state.values()}
    seen = []

    def step(real: Any = toy.optimizer.optimizer.step) -> None:
        having = [number for number, p in enumerate(toy.parameters) if p.grad is not None]
        seen.append(having)
        assert all(
            id(value) not in places
            for number in having
            for value in toy.optimizer.optimizer.state[toy.parameters[number]].values()
            if value.ndim
        )
        real()

    monkeypatch.setattr(toy.optimizer.optimizer, "step", step)
    toy.steps(2, 3)
    assert seen == [[0, 1], [2, 3], [4]]
    assert {id(t) for state in toy.optimizer.state.values() for t in state.values()} == places


def test_a_state_of_another_optimizer_is_refused() -> None:
    came, adamw = Toy("came", True), Toy("adamw", True)
    for toy in (came, adamw):
        toy.steps(0, 1)
    with pytest.raises(Exception, match="does not fit"):
        came.optimizer.load_state_dict(adamw.optimizer.state_dict())
    assert came.optimizer.param_groups[0]["params"] is not None
    assert all(a is b for a, b in zip(came.optimizer.param_groups[0]["params"], came.parameters, strict=True))
