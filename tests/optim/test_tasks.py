"""8 bits train as well as 32 on text and on images: the same loss within a small part of what was learned."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from sanactl.optim import build_optimizer

from .tasks import MakeOptimizer, image_loss, text_loss


def maker(name: str, lr: float, **options: Any) -> MakeOptimizer:
    return lambda params: build_optimizer(name, params, lr, **options)


Task = Callable[..., float]


@cache
def loss(task: Task, steps: int, name: str, lr: float, **options: Any) -> float:
    return task(maker(name, lr, **options), steps)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scheme", ["linear", "zero", "dynamic"])
@pytest.mark.parametrize(("task", "steps"), [(text_loss, 60), (image_loss, 40)])
def test_8_bits_reach_the_loss_of_32(task: Task, steps: int, scheme: str) -> None:
    start = loss(task, 10, "came", lr=0.0)
    full = loss(task, steps, "came", lr=3e-4)
    eight = loss(task, steps, "came8bit", lr=3e-4, scheme=scheme)
    assert full < 0.7 * start, "the task has to be learned for the comparison to mean anything"
    assert abs(eight - full) < 0.01 * (start - full)
