"""Saving, loading and resuming: bit for bit, whatever the parameters' dtype and the file format."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sanactl.errors import InputError, UsageError
from sanactl.optim import CAME, CAME8bit
from sanactl.optim.blockwise import SCHEMES, Scheme

from .test_came import params, set_grads

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def run(optimizer: torch.optim.Optimizer, ps: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        set_grads(ps, step)
        optimizer.step()


def same_bits(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        v.dtype == b[k].dtype and v.shape == b[k].shape and torch.equal(v, b[k]) for k, v in a.items()
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kind", "options"),
    [(CAME, {}), (CAME, {"bf16_stochastic_round": True}), (CAME8bit, {"bf16_stochastic_round": True})]
    + [(CAME8bit, {"scheme": c}) for c in SCHEMES],
)
def test_a_resumed_run_is_the_undisturbed_run(
    kind: type[CAME], options: dict[str, Any], dtype: torch.dtype
) -> None:
    whole = params(dtype=dtype)
    optimizer = kind(whole, lr=1e-2, **options)
    run(optimizer, whole, range(6))

    first = params(dtype=dtype)
    before = kind(first, lr=1e-2, **options)
    run(before, first, range(3))
    file = io.BytesIO()
    torch.save({"model": first, "optimizer": before.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=False)
    second = [nn.Parameter(p.detach().clone()) for p in saved["model"]]
    after = kind(second, lr=1e-2)  # the options come back with the state
    after.load_state_dict(saved["optimizer"])
    run(after, second, range(3, 6))
    for p, q in zip(whole, second, strict=True):
        assert torch.equal(p, q)
        assert same_bits(optimizer.state[p], after.state[q])


def test_state_dict_loads_with_weights_only() -> None:
    ps = params()
    optimizer = CAME8bit(ps)
    run(optimizer, ps, range(2))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    CAME8bit(ps).load_state_dict(torch.load(file, weights_only=True))


def test_safetensors_round_trip(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    ps = params(dtype=torch.bfloat16)
    optimizer = CAME8bit(ps)
    run(optimizer, ps, range(2))
    saved = optimizer.state_dict()
    flat = {f"{i}/{k}": v for i, state in saved["state"].items() for k, v in state.items()}
    safetensors.save_file(flat, tmp_path / "optimizer.safetensors")
    loaded: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in safetensors.load_file(tmp_path / "optimizer.safetensors").items():
        i, key = name.split("/")
        loaded.setdefault(int(i), {})[key] = tensor
    other = CAME8bit(ps)
    other.load_state_dict({"state": loaded, "param_groups": saved["param_groups"]})
    assert all(same_bits(optimizer.state[p], other.state[p]) for p in ps)


def test_accelerate_saves_and_resumes(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(160, 130), nn.Linear(130, 3)).bfloat16()
    model, optimizer = accelerator.prepare(model, CAME8bit(model.parameters(), lr=1e-3))
    run(optimizer, list(model.parameters()), range(2))
    accelerator.save_state(str(tmp_path))
    wanted = copy.deepcopy(optimizer.state_dict()["state"])
    run(optimizer, list(model.parameters()), range(2, 4))
    accelerator.load_state(str(tmp_path))
    found = optimizer.state_dict()["state"]
    assert all(same_bits(wanted[i], found[i]) for i in wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("back", [False, True])
def test_state_crosses_devices_bit_for_bit(gpu: torch.device, back: bool) -> None:
    here, there = (gpu, torch.device("cpu")) if back else (torch.device("cpu"), gpu)
    ps = [nn.Parameter(p.detach().to(here)) for p in params(dtype=torch.bfloat16)]
    optimizer = CAME8bit(ps)
    run(optimizer, ps, range(2))
    others = [nn.Parameter(p.detach().to(there)) for p in ps]
    other = CAME8bit(others)
    other.load_state_dict(optimizer.state_dict())
    for p, q in zip(ps, others, strict=True):
        state = other.state[q]
        assert all(v.device == q.device for v in state.values())
        assert same_bits(
            optimizer.state[p], {k: v.to(optimizer.state[p][k].device) for k, v in state.items()}
        )


def test_a_copied_optimizer_goes_on_alike() -> None:
    ps = params()
    optimizer = CAME8bit(ps, lr=1e-2)
    run(optimizer, ps, range(2))
    model, twin = copy.deepcopy((ps, optimizer))
    run(optimizer, ps, range(2, 4))
    run(twin, model, range(2, 4))
    assert all(torch.equal(p, q) for p, q in zip(ps, model, strict=True))


def test_users_load_hooks_see_plain_tensors() -> None:
    ps = params()
    optimizer = CAME8bit(ps)
    run(optimizer, ps, range(1))
    seen = []
    optimizer.register_load_state_dict_pre_hook(lambda _, s: seen.append(type(s["state"][0]["step"])))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == [torch.Tensor]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_state_that_calls_the_scheme_code_loads(scheme: Scheme) -> None:
    """States that were saved by earlier versions call the quantization scheme a code."""
    whole, parts = params(), params()
    optimizer = CAME8bit(whole, lr=1e-2, scheme=scheme)
    run(optimizer, whole, range(4))
    before = CAME8bit(parts, lr=1e-2, scheme=scheme)
    run(before, parts, range(2))
    saved = before.state_dict()
    for group in saved["param_groups"]:
        group["code"] = group.pop("scheme")
    after = CAME8bit(parts, lr=1e-2, scheme="zero")
    after.load_state_dict(saved)
    assert [group["scheme"] for group in after.param_groups] == [scheme]
    assert "code" not in after.param_groups[0]
    run(after, parts, range(2, 4))
    assert all(torch.equal(p, q) for p, q in zip(whole, parts, strict=True))
    with pytest.raises(UsageError, match="no option code"):
        CAME8bit([{"params": params(), "code": scheme}])


@pytest.mark.parametrize("other", [{"scheme": "linear"}, {"min_8bit_size": 10**9}])
def test_a_state_that_does_not_fit_is_refused(other: dict[str, Any]) -> None:
    ps = params(shapes=[(160, 130)])
    optimizer = CAME8bit(ps, **other)
    run(optimizer, ps, range(1))
    saved = optimizer.state_dict()
    mine = CAME8bit(ps, scheme="zero")
    run(mine, ps, range(1))
    before = copy.deepcopy(mine.state_dict()["state"][0])
    foreign = {**saved, "param_groups": mine.state_dict()["param_groups"]}
    with pytest.raises(InputError, match=r"does not fit parameter 0 of group 0 \[160, 130\]"):
        mine.load_state_dict(foreign)
    assert same_bits(before, mine.state_dict()["state"][0])


def test_another_models_state_is_refused() -> None:
    ps, others = params(shapes=[(160, 130)]), params(shapes=[(160, 131)])
    optimizer = CAME8bit(others)
    run(optimizer, others, range(1))
    with pytest.raises(InputError, match="exp_avg_codes is uint8"):
        CAME8bit(ps).load_state_dict(optimizer.state_dict())
    adam = torch.optim.AdamW(ps)
    run(adam, ps, range(1))
    with pytest.raises(InputError, match="does not fit"):
        CAME8bit(ps).load_state_dict(adam.state_dict())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_state_takes_about_one_byte_a_parameter(scheme: Scheme) -> None:
    """On a feed-forward matrix of SANA 1.6B; the bytes come from the state itself."""
    p = nn.Parameter(torch.zeros(2240, 5600, dtype=torch.bfloat16))
    p.grad = torch.ones_like(p)
    optimizer = CAME8bit([p], scheme=scheme)
    optimizer.step()
    size = sum(t.numel() * t.element_size() for t in optimizer.state[p].values())
    assert 1 < size / p.numel() <= 1.03
