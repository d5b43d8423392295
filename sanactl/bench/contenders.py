"""The optimizers that `sanactl.bench.optim` compares, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import nn

from sanactl.optim import build_optimizer
from sanactl.optim.listwise import ListwiseCAME8bit

__all__ = ["BASELINE", "CAPTURED", "CONTENDERS", "HUNGRIEST", "LR", "Contender"]

BASELINE = "came8bit-public"
# What is added to the name of an optimizer whose step is replayed from a CUDA graph.
CAPTURED = "-captured"
LR = 1e-5
# The most memory of any optimizer besides parameters and gradients, in bytes a parameter (came-pytorch).
HUNGRIEST = 16

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class Contender(NamedTuple):
    """An optimizer.

    Attributes:
        kind: its algorithm, which says what bytes a step must move (`optim_cost.moved_bytes`).
        make: makes it for some parameters; ImportError if its package is missing.
        captured: whether its steps are replays of a CUDA graph.
    """

    kind: str
    make: Make
    captured: bool = False


def _imported(module: str, name: str, **options: Any) -> Make:
    """An optimizer of another package; ImportError when it is made."""

    def make(params: list[nn.Parameter]) -> torch.optim.Optimizer:
        built: torch.optim.Optimizer = getattr(import_module(module), name)(params, **options)
        return built

    return make


def _named(name: str, **options: Any) -> Make:
    """An optimizer of sanactl's table."""
    return lambda params: build_optimizer(name, params, LR, **options)


CONTENDERS: Mapping[str, Contender] = {
    "adamw": Contender("adam", _named("adamw", fused=False)),
    "adamw-fused": Contender("adam", _named("adamw", fused=True)),
    "adamw8bit-bitsandbytes": Contender("adam", _imported("bitsandbytes.optim", "AdamW8bit", lr=LR)),
    "adamw8bit-torchao": Contender("adam", _imported("torchao.optim", "AdamW8bit", lr=LR)),
    "came-pytorch": Contender("came", _imported("came_pytorch", "CAME", lr=LR)),
    "came": Contender("came", _named("came")),
    BASELINE: Contender("came8bit", partial(ListwiseCAME8bit, lr=LR)),
    "came8bit-linear": Contender("came8bit", _named("came8bit", scheme="linear")),
    "came8bit-dynamic": Contender("came8bit", _named("came8bit", scheme="dynamic")),
    "came8bit": Contender("came8bit", _named("came8bit")),
    "adamw-fused-captured": Contender("adam", _named("adamw", fused=True, capturable=True), captured=True),
    "came-captured": Contender("came", _named("came", capturable=True), captured=True),
    "came8bit-captured": Contender("came8bit", _named("came8bit", capturable=True), captured=True),
}
