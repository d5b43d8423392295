"""CAME under DDP and FSDP2, in two processes on the CPU; `test_distributed` runs this file under torchrun.

Every process runs every case. What is compared is training in one process, which each does by itself beside it.
"""

from __future__ import annotations

import copy
import datetime
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter, load, save
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from sanactl.errors import InputError, TrainingError, UsageError
from sanactl.optim import CAME, CAME8bit, came, masked
from sanactl.optim.blockwise import SCHEMES, Scheme
from sanactl.optim.resharding import Whole, cut_state, whole_state
from sanactl.optim.state import Entry, check_state

STEPS, BATCH = 5, 8


@pytest.fixture(scope="module", autouse=True)
def group() -> Iterator[None]:
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


def read(t: Tensor | Whole) -> Tensor:
    return t.read() if isinstance(t, Whole) else t


class Held:
    """A whole tensor in memory as a `Source`."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.shape = tensor, tuple(tensor.shape)

    def rows(self, start: int, stop: int) -> Tensor:
        return self.tensor[start:stop]

    def read(self) -> Tensor:
        return self.tensor


@pytest.mark.parametrize("scheme", SCHEMES)
def test_state_goes_to_one_process_and_back(scheme: Scheme) -> None:
    """Bit for bit; so does a state of one process that is cut for two."""
    model, optimizer = sharded(CAME8bit, scheme=scheme)
    train(model, optimizer, range(2), share=True)
    one = net()
    alone = CAME8bit(one.named_parameters(), lr=1e-3, scheme=scheme)
    train(one, alone, range(1), share=False)
    for (name, p), q in zip(model.named_parameters(), one.parameters(), strict=True):
        group, mine = optimizer.param_groups[0], optimizer.state[p]
        gathered = {key: read(whole_state(p, group, key, value)) for key, value in mine.items()}
        for key, value in alone.state[q].items():
            assert (gathered[key].shape, gathered[key].dtype) == (value.shape, value.dtype), name
        for key, value in mine.items():
            again = cut_state(p, group, key, Held(gathered[key]))
            assert torch.equal(*(t.to_local() if isinstance(t, DTensor) else t for t in (value, again))), key
        cut = {key: cut_state(p, group, key, Held(value)) for key, value in alone.state[q].items()}
        check_state(Entry(p, group, 0, name), cut)
        for key, value in alone.state[q].items():
            assert torch.equal(read(whole_state(p, group, key, cut[key])), value), key


def test_nobody_holds_more_than_a_share() -> None:
    model, optimizer = sharded(CAME8bit)
    train(model, optimizer, range(1), share=True)
    p = model.first.weight
    assert isinstance(p, DTensor)
    held = optimizer.state[p]["exp_avg_codes"].to_local()
    assert held.shape == p.to_local().shape == ((81, 130) if dist.get_rank() == 0 else (80, 130))
    single = model.last.weight
    assert isinstance(single, DTensor)
    assert single.to_local().shape[0] == (1 if dist.get_rank() == 0 else 0)


@pytest.mark.parametrize("full_state", [False, True])
@pytest.mark.parametrize("kind", [CAME, CAME8bit])
def test_a_resumed_sharded_run_is_the_undisturbed_run(
    kind: type[CAME], full_state: bool, tmp_path: Path
) -> None:
    whole, optimizer = sharded(kind)
    train(whole, optimizer, range(2), share=True)
    options = StateDictOptions(full_state_dict=full_state, broadcast_from_rank0=full_state)
    saved = get_optimizer_state_dict(whole, optimizer, options=options)
    weights = {n: t.clone() for n, t in full(whole).items()}
    again, other = sharded(kind)
    if full_state:
        saved = copy.deepcopy(saved)
    else:  # through files, of which each process writes its part
        folder = [str(tmp_path)]
        dist.broadcast_object_list(folder)
        save(saved, storage_writer=FileSystemWriter(folder[0]))
        saved = get_optimizer_state_dict(again, other, options=options)
        load(saved, storage_reader=FileSystemReader(folder[0]))
    train(whole, optimizer, range(2, 4), share=True)
    set_optimizer_state_dict(again, other, saved, options=options)
    with torch.no_grad():
        for name, p in again.named_parameters():
            assert isinstance(p, DTensor)
            p.copy_(distribute_tensor(weights[name], p.device_mesh, p.placements))
    train(again, other, range(2, 4), share=True)
    for p, q in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(p.to_local(), q.to_local())
        for key, value in optimizer.state[p].items():
            theirs = other.state[q][key]
            a, b = ((t.to_local() if isinstance(t, DTensor) else t) for t in (value, theirs))
            assert a.dtype == b.dtype
            assert torch.equal(a, b), key


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


def test_one_process_state_is_refused_by_shards() -> None:
    model = net()
    optimizer = CAME8bit(model.parameters())
    train(model, optimizer, range(1), share=False)
    _, other = sharded(CAME8bit)
    with pytest.raises(InputError, match=r"does not fit.*on as many processes"):
        other.load_state_dict(optimizer.state_dict())


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


def test_shards_agree_on_what_their_parameter_is() -> None:
    """The state is saved once for all processes, so what it holds for the draws must not differ between them."""
    mesh = init_device_mesh("cpu", (2,))
    whole = torch.arange(201 * 10).reshape(201, 10).bfloat16()
    p = nn.Parameter(distribute_tensor(whole, mesh, [Shard(0)]))
    p.grad = distribute_tensor(torch.ones(201, 10), mesh, [Shard(0)]).bfloat16()
    optimizer = CAME([("w", p)], bf16_stochastic_round=True)
    optimizer.step()
    mine = optimizer.state[p]["rounding_identity"].reshape(1)
    both = [torch.empty_like(mine) for _ in range(2)]
    torch.distributed.all_gather(both, mine)
    assert torch.equal(*both)
    optimizer.load_state_dict(optimizer.state_dict())


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
