"""8 bits train as well as 32 on text and on images: the same loss within a small part of what was learned."""

from __future__ import annotations

import pytest

from sanactl.optim import build_optimizer

from .tasks import MakeOptimizer, image_loss, text_loss


def maker(name: str, lr: float, **options: object) -> MakeOptimizer:
    return lambda params: build_optimizer(name, params, lr, **options)


@pytest.mark.parametrize("code", ["linear", "zero", "dynamic"])
@pytest.mark.parametrize(("task", "steps"), [(text_loss, 80), (image_loss, 60)])
def test_8_bits_reach_the_loss_of_32(task: object, steps: int, code: str) -> None:
    assert callable(task)
    start = task(maker("came", 0.0), steps)
    full = task(maker("came", 3e-4), steps)
    eight = task(maker("came8bit", 3e-4, code=code), steps)
    assert full < 0.8 * start, "the task has to be learned for the comparison to mean anything"
    assert abs(eight - full) < 0.01 * (start - full)
