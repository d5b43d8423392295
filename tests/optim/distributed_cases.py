"""CAME under DDP and FSDP2, in two processes on the CPU; `test_distributed` runs this file under torchrun.

Every process runs every case. What is compared is training in one process, which each does by itself beside it.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from sanactl.errors import TrainingError, UsageError
from sanactl.optim import CAME, CAME8bit, came, masked
from sanactl.optim.blockwise import SCHEMES, Scheme
from sanactl.optim.resharding import whole_state

from .distributed_net import STEPS, alone, error, full, group, net, read, sharded, train

__all__ = ["group"]


@pytest.mark.parametrize("kind", [CAME, CAME8bit])
def test_ddp_keeps_everyone_alike(kind: type[CAME]) -> None:
    model = DistributedDataParallel(net())
    optimizer = kind(model.parameters(), lr=1e-3)
    train(model, optimizer, range(STEPS), share=True)
    for p in model.parameters():
        for t in (p.detach(), *optimizer.state[p].values()):
            other = t.clone()
            dist.broadcast(other, src=0)
            assert torch.equal(t, other)
    assert error(full(model.module), alone(kind)) < (1e-4 if kind is CAME else 2e-2)


def test_fsdp2_trains_as_one_process() -> None:
    model, optimizer = sharded(CAME, weight_decay=0.1)
    train(model, optimizer, range(STEPS), share=True)
    one = alone(CAME, weight_decay=0.1)
    for name, p in full(model).items():
        torch.testing.assert_close(p, one.get_parameter(name).detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_fsdp2_trains_as_one_process_in_8_bits(scheme: str) -> None:
    """Blocks of 2048 values lie on the cut of both matrices: row 81 of 130 values, row 70 of 161."""
    model, optimizer = sharded(CAME8bit, scheme=scheme)
    train(model, optimizer, range(STEPS), share=True)
    exact, one = alone(CAME), alone(CAME8bit, scheme=scheme)
    noise = error(full(one), exact)
    # Sums in another order move a value to the next level now and then.
    assert error(full(model), one) < 0.1 * noise
    assert noise < 0.1


@pytest.mark.parametrize(
    ("shape", "block"),
    [
        pytest.param((130, 128), 640, id="no block is cut"),
        pytest.param((130, 128), 2048, id="one block is cut"),
        pytest.param((5, 40), 2048, id="one block in all"),
        pytest.param((1, 400), 100, id="a process has nothing"),
    ],
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_blocks_are_those_of_one_process(scheme: Scheme, shape: tuple[int, int], block: int) -> None:
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    mesh = init_device_mesh("cpu", (2,))
    whole, part = nn.Parameter(start.clone()), nn.Parameter(distribute_tensor(start, mesh, [Shard(0)]))
    options: dict[str, Any] = {"lr": 1e-3, "block_size": block, "min_8bit_size": 1, "scheme": scheme}
    a, b = (CAME8bit([p], **options) for p in (whole, part))
    for step in range(STEPS):
        whole.grad = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        part.grad = distribute_tensor(whole.grad, mesh, [Shard(0)])
        a.step()
        b.step()
    assert isinstance(part, DTensor)
    # Sums in another order move a moment to the next level now and then.
    assert ((part.full_tensor() - whole).abs() > 2e-6).float().mean() < 1e-3
    mine = {k: read(whole_state(part, b.param_groups[0], k, v)) for k, v in b.state[part].items()}
    one = a.state[whole]
    assert {k: (v.shape, v.dtype) for k, v in mine.items()} == {k: (v.shape, v.dtype) for k, v in one.items()}
    torch.testing.assert_close(mine["exp_avg_scale"], one["exp_avg_scale"], rtol=1e-3, atol=0)
    differ = (mine["exp_avg_codes"].int() - one["exp_avg_codes"].int()).abs()
    assert differ.max() <= 1
    assert differ.float().mean() < 0.01


def test_a_bad_gradient_in_one_shard_stops_everyone() -> None:
    model, optimizer = sharded(CAME8bit)
    train(model, optimizer, range(1), share=True)
    before = {n: p.clone() for n, p in full(model).items()}
    grad = model.second.weight.grad
    assert isinstance(grad, DTensor)
    if dist.get_rank() == 1:
        grad.to_local()[3, 4] = torch.inf
    with pytest.raises(TrainingError, match=r"second\.weight.*contains inf or NaN.*nothing was changed"):
        optimizer.step()
    assert all(torch.equal(before[n], p) for n, p in full(model).items())


def test_columns_are_not_cut() -> None:
    mesh = init_device_mesh("cpu", (2,))
    p = nn.Parameter(distribute_tensor(torch.ones(4, 4), mesh, [Shard(1)]))
    with pytest.raises(UsageError, match="whole or cut into rows"):
        CAME([p])


def test_stochastic_rounding_draws_differ_between_shards() -> None:
    mesh = init_device_mesh("cpu", (2,))
    p = nn.Parameter(distribute_tensor(torch.ones(200, 100), mesh, [Shard(0)]).bfloat16())
    p.grad = distribute_tensor(torch.ones(200, 100), mesh, [Shard(0)]).bfloat16()
    CAME([p], lr=2e-4, bf16_stochastic_round=True).step()
    assert isinstance(p, DTensor)
    above, below = p.full_tensor().detach().chunk(2)
    assert not torch.equal(above, below)
    assert 0 < (above < 1).float().mean() < 1


def test_kernels_on_shards_are_the_whole_parameter_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Triton's interpreter: cut blocks, a process without rows, vectors and a convolution in shards."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("triton is not installed")
    from sanactl.optim import triton_step

    generator, mesh = torch.Generator().manual_seed(0), init_device_mesh("cpu", (2,))
    start = [torch.randn(s, generator=generator) for s in [(11, 100), (1, 20), (5, 1, 3), (7,)]]
    wholes = [nn.Parameter(t.clone()) for t in start]
    parts = [nn.Parameter(distribute_tensor(t, mesh, [Shard(0)])) for t in start]
    options: Any = {"weight_decay": 0.1, "block_size": 256, "min_8bit_size": 100}
    one, many = (CAME8bit(ps, lr=1e-2, **options) for ps in (wholes, parts))
    for step in range(2):
        for p, q in zip(wholes, parts, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = distribute_tensor(p.grad, mesh, [Shard(0)])
        one.step()
        with monkeypatch.context() as patch:
            for module in (came, masked):
                patch.setattr(module, "kernels_for", lambda device: triton_step)
            if step == 1:  # one process has a bad gradient, and all refuse the step
                before = [p.detach().full_tensor().clone() for p in parts]
                good = parts[0].grad.to_local()[1, 2].clone()
                if dist.get_rank() == 1:
                    parts[0].grad.to_local()[1, 2] = torch.nan
                with pytest.raises(TrainingError, match="contains inf or NaN"):
                    many.step()
                assert all(
                    torch.equal(p.detach().full_tensor(), t) for p, t in zip(parts, before, strict=True)
                )
                parts[0].grad.to_local()[1, 2] = good
            many.step()
    for p, q in zip(wholes, parts, strict=True):
        torch.testing.assert_close(q.detach().full_tensor(), p.detach(), rtol=0, atol=3e-6)
        for key, value in one.state[p].items():
            theirs = many.state[q][key]
            if isinstance(theirs, DTensor) and key not in ("exp_avg_scale", "exp_avg_zero"):
                theirs = theirs.full_tensor()
                torch.testing.assert_close(theirs.float(), value.float(), rtol=1e-5, atol=1e-7)
