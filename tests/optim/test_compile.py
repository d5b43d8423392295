"""Under torch.compile: the step is one graph with no break but the check of the gradients, which has to raise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from sanactl.optim import CAME, CAME8bit
from sanactl.optim.blockwise import SCHEMES
from sanactl.optim.reference import Hyper, came_step
from sanactl.optim.state import empty_state, entries
from sanactl.optim.update import check_gradients, update

from .test_came import params, set_grads

SHAPES = [(160, 130), (24, 1, 3, 3), (40,)]
KINDS = [(CAME, {}), *((CAME8bit, {"scheme": scheme}) for scheme in SCHEMES)]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_the_step_of_all_parameters_is_one_graph(
    kind: type[CAME], options: dict[str, Any], dtype: torch.dtype
) -> None:
    """`fullgraph` raises at any break. The eager backend runs the graph as it was captured."""
    seed = 7 if dtype == torch.bfloat16 else None
    found = []
    for compiled in (False, True):
        ps = params(dtype=dtype, shapes=SHAPES)
        optimizer = kind(ps, lr=1e-2, **options)
        work = list(entries(optimizer.param_groups))
        states = [empty_state(e.p, e.group) for e in work]

        def change(sums: Any, lr: float, work: Any = work, states: Any = states) -> None:
            for entry, state, its_sums in zip(work, states, sums, strict=True):
                update(entry, state, its_sums, Hyper(lr), seed)

        run: Any = torch.compile(change, fullgraph=True, backend="eager") if compiled else change
        with torch.no_grad():
            for step in range(2):
                set_grads(ps, step)
                run(check_gradients(work), 1e-2 / (step + 1))
        found.append([t.detach() for t in ps] + [t for state in states for t in state.values()])
    for eager, graph in zip(*found, strict=True):
        torch.testing.assert_close(eager, graph, rtol=1e-5, atol=1e-6)


def test_the_reference_is_one_graph() -> None:
    p, g = torch.randn(2, 20, 30, generator=torch.Generator().manual_seed(0))
    zeros = {f"exp_avg_{s}_{d}": torch.zeros(n) for s in ("sq", "res") for d, n in (("row", 20), ("col", 30))}
    state = {"exp_avg": torch.zeros(20, 30), **zeros}

    def step(p: Tensor, g: Tensor) -> Tensor:
        return came_step(p, g, state, Hyper(1e-3))[0]

    torch.testing.assert_close(torch.compile(step, fullgraph=True, backend="eager")(p, g), step(p, g))


def test_a_compiled_step_method_trains_alike() -> None:
    found = []
    for compiled in (False, True):
        ps = params(shapes=SHAPES)
        optimizer = CAME8bit(ps, lr=1e-2)
        step: Any = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
        for i in range(3):
            set_grads(ps, i)
            step()
        found.append(ps)
    for p, q in zip(*found, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
