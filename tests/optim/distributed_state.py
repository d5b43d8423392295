"""The state of sharded parameters: saved, loaded, gathered and cut; run as `distributed_cases` is."""

from __future__ import annotations

import copy
from pathlib import Path

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
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from sanactl.errors import InputError
from sanactl.optim import CAME, CAME8bit
from sanactl.optim.blockwise import SCHEMES, Scheme
from sanactl.optim.resharding import cut_state, whole_state
from sanactl.optim.state import Entry, check_state

from .distributed_net import full, group, net, read, sharded, train

__all__ = ["group"]


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


def test_one_process_state_is_refused_by_shards() -> None:
    model = net()
    optimizer = CAME8bit(model.parameters())
    train(model, optimizer, range(1), share=False)
    _, other = sharded(CAME8bit)
    with pytest.raises(InputError, match=r"does not fit.*on as many processes"):
        other.load_state_dict(optimizer.state_dict())


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
