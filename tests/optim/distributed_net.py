"""What the cases in two processes share: the process group, a small network, its training in one process and in shards."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from sanactl.optim import CAME
from sanactl.optim.resharding import Whole

STEPS, BATCH = 5, 8


@pytest.fixture(scope="session", autouse=True)
def group() -> Iterator[None]:
    """Joined once, though each file of cases has this fixture."""
    if dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
    yield
    dist.destroy_process_group()


class Net(nn.Module):
    """Matrices of even and uneven rows, one with a single row (a process then has none), a convolution, vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(130, 161)
        self.norm = nn.LayerNorm(161)
        self.second = nn.Linear(161, 140)
        self.depth = nn.Conv1d(5, 5, 3, padding=1, groups=5)
        self.last = nn.Linear(140, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(self.norm(self.first(x)).relu())
        return self.last(self.depth(h.view(-1, 5, 28)).flatten(1))


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range, *, share: bool) -> None:
    """`share`: this process takes its half of the batch; gradients are then averaged by DDP or FSDP.

    One process takes the halves one after the other: sums in another order would make other gradients.
    """
    for step in steps:
        halves = torch.randn(2, BATCH // 2, 130, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        for x in halves[dist.get_rank()][None] if share else halves:
            loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
            (loss if share else loss / 2).backward()
        optimizer.step()


def alone(kind: type[CAME], **options: Any) -> Net:
    model = net()
    train(model, kind(model.named_parameters(), lr=1e-3, **options), range(STEPS), share=False)
    return model


def sharded(kind: type[CAME], **options: Any) -> tuple[Net, CAME]:
    model = net()
    for layer in (model.first, model.second):
        fully_shard(layer)
    fully_shard(model)
    return model, kind(model.named_parameters(), lr=1e-3, **options)


def full(model: nn.Module) -> dict[str, Tensor]:
    found = {n: p.detach() for n, p in model.named_parameters()}
    return {n: p.full_tensor() if isinstance(p, DTensor) else p for n, p in found.items()}


def error(a: dict[str, Tensor], b: nn.Module) -> float:
    """The largest relative difference of a parameter's way from where it began, over all parameters."""
    start = full(net())
    return max(
        float((a[n] - p.detach()).norm() / (p.detach() - start[n]).norm()) for n, p in b.named_parameters()
    )


def read(t: Tensor | Whole) -> Tensor:
    return t.read() if isinstance(t, Whole) else t
