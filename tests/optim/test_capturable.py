"""`capturable`: steps that read nothing from the device, so that a CUDA graph can hold them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sanactl.errors import UsageError
from sanactl.optim import CAME, CAME8bit, masked, plan

from .test_came import params, set_grads

KINDS: list[tuple[type[CAME], dict[str, Any], torch.dtype]] = [
    (CAME, {"maximize": True}, torch.float32),
    (CAME8bit, {"weight_decay": 0.1}, torch.float32),
    (CAME8bit, {"scheme": "linear"}, torch.bfloat16),
    (CAME8bit, {"scheme": "dynamic", "bf16_stochastic_round": True}, torch.bfloat16),
]


class NoRead(TorchDispatchMode):
    """Fails where a tensor's value becomes a Python number."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero"), (
            f"the step reads: {name}"
        )
        return func(*args, **(kwargs or {}))


def pair(
    kind: type[CAME], options: dict[str, Any], dtype: torch.dtype, device: torch.device | str = "cpu"
) -> tuple[list[nn.Parameter], CAME, list[nn.Parameter], CAME, torch.Tensor]:
    """Parameters and a capturable optimizer, the same with an ordinary one, and the rate of the first (double)."""
    lr = torch.tensor(1e-2, dtype=torch.float64, device=device)
    ours, others = ([nn.Parameter(p.detach().to(device)) for p in params(dtype=dtype)] for _ in range(2))
    return ours, kind(ours, lr=lr, capturable=True, **options), others, kind(others, lr=1e-2, **options), lr


@pytest.mark.parametrize(("kind", "options", "dtype"), KINDS)
def test_no_step_reads_and_all_are_the_ordinary_ones(
    kind: type[CAME], options: dict[str, Any], dtype: torch.dtype
) -> None:
    """To one rounding, which scalar parameters have: the rate is a double, as Python's numbers are."""
    ours, optimizer, others, ordinary, lr = pair(kind, options, dtype)
    for step in range(3):
        rate = 1e-2 / (step + 1)
        lr.fill_(rate)
        ordinary.param_groups[0]["lr"] = rate
        set_grads(ours, step)
        set_grads(others, step)
        ordinary.step()
        if step == 0:  # makes the state
            optimizer.step()
        else:
            with NoRead():
                optimizer.step()
    for p, q in zip(ours, others, strict=True):
        torch.testing.assert_close(p, q, rtol=2e-7, atol=0)
        assert all(torch.equal(t, ordinary.state[q][key]) for key, t in optimizer.state[p].items())
    with pytest.raises(AssertionError, match="the step reads"), NoRead():
        lr.item()


def test_a_step_needs_no_values_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of the meta device have none, and raise where one is read."""
    monkeypatch.setenv("SANACTL_NO_TRITON", "1")
    for capturable in (True, False):
        ps = [nn.Parameter(torch.empty(p.shape, device="meta")) for p in params()]
        for p in ps:
            p.grad = torch.empty_like(p)
        optimizer = CAME8bit(ps, capturable=capturable)
        if capturable:
            optimizer.step()
            optimizer.step()
        else:
            with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
                optimizer.step()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_a_step_with_a_bad_gradient_is_skipped_and_counted(bad: float) -> None:
    ours, optimizer, others, ordinary, _ = pair(CAME8bit, {}, torch.float32)
    assert optimizer.skipped_steps == 0
    for step in range(3):
        set_grads(ours, step)
        set_grads(others, step)
        if step == 1:
            assert ours[2].grad is not None
            ours[2].grad.view(-1)[1] = bad
        else:
            ordinary.step()
        optimizer.step()
        assert optimizer.skipped_steps == (step > 0)
    assert all(torch.equal(p, q) for p, q in zip(ours, others, strict=True))
    assert all(state["step"] == 2 for state in optimizer.state.values())


def test_the_way_of_stepping_is_not_loaded() -> None:
    """A state of an ordinary optimizer, or of a version without the option, goes on in a capturable one."""
    ours, optimizer, others, ordinary, _ = pair(CAME8bit, {}, torch.float32)
    set_grads(others, 0)
    ordinary.step()
    saved = ordinary.state_dict()
    for old in (False, True):
        if old:
            del saved["param_groups"][0]["capturable"]
        optimizer.load_state_dict(saved)
        assert optimizer.param_groups[0]["capturable"] is True
    with torch.no_grad():
        for p, q in zip(ours, others, strict=True):
            p.copy_(q)
    for o, ps in ((optimizer, ours), (ordinary, others)):
        set_grads(ps, 1)
        o.step()
    assert all(torch.equal(p, q) for p, q in zip(ours, others, strict=True))


def test_all_groups_or_none() -> None:
    a, b = params(shapes=[(3, 4), (5,)])
    optimizer = CAME8bit([{"params": [a]}, {"params": [b], "capturable": True}])
    set_grads([a, b], 0)
    with pytest.raises(UsageError, match="some parameter groups are capturable and others are not"):
        optimizer.step()


def test_a_captured_step_has_tables_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, where kernels are not run, and with a capture that is only claimed."""
    pytest.importorskip("triton")
    from sanactl.bench.launches import _counted_kernels

    sent: list[int] = []
    capturing = False

    def send(self: plan.Plan, values: torch.Tensor, to: torch.Tensor) -> None:
        sent.append(values.shape[0])
        if capturing:
            self._sent.append(values)

    monkeypatch.setattr(plan.Plan, "_send", send)
    for module in (plan, masked):
        monkeypatch.setattr(module, "is_capturing", lambda device: capturing)
    ps = [nn.Parameter(torch.empty(shape, device="meta")) for shape in ((6, 20), (5,))]
    for p in ps:
        p.grad = torch.empty_like(p)
    optimizer = CAME8bit(ps, capturable=True)
    with _counted_kernels():
        for claimed, expected in ((False, [2, 1]), (False, []), (True, [1, 2]), (False, [1, 2])):
            capturing = claimed
            sent.clear()
            optimizer.step()
            assert sent == expected  # rows of the table, rows of settings
        ps[1].grad = None
        optimizer.step()  # other tables, and the graph keeps its own
        assert sent == [1, 2, 1, 1]
        assert optimizer._masked is not None
        (device,) = optimizer._masked._devices.values()
        assert len(device._captured) == 1
        capturing, ps[1].grad = True, torch.empty_like(ps[1])
        with pytest.raises(UsageError, match="not those of the last step"):
            optimizer.step()


@pytest.mark.parametrize("options", [{}, {"bf16_stochastic_round": True}])
def test_a_capture_that_cannot_be_is_refused(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A capture that is only claimed: before the first step, and with a rate on the CPU."""
    from sanactl.optim import came

    ps = params(dtype=torch.bfloat16)
    set_grads(ps, 0)
    optimizer = CAME8bit(ps, lr=1e-3, capturable=True)
    before = [p.detach().clone() for p in ps]
    if options:  # the state is there, but not what the draws need
        optimizer.step()
        before = [p.detach().clone() for p in ps]
        optimizer.param_groups[0].update(options)
    for module in (came, masked):
        monkeypatch.setattr(module, "is_capturing", lambda device: True)
    with pytest.raises(UsageError, match="some parameters have no optimizer state yet"):
        optimizer.step()
    assert all(torch.equal(p, old) for p, old in zip(ps, before, strict=True))
    monkeypatch.undo()
    optimizer.step()
    for module in (came, masked):
        monkeypatch.setattr(module, "is_capturing", lambda device: True)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = torch.tensor(1e-3)
    with pytest.raises(UsageError, match="the learning rate is a tensor on the CPU"):
        optimizer.step()


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "options", "dtype"), KINDS)
def test_a_graph_holds_the_step(
    gpu: torch.device, kind: type[CAME], options: dict[str, Any], dtype: torch.dtype
) -> None:
    if gpu.type != "cuda":
        pytest.skip("CUDA graphs are for CUDA")
    ours, optimizer, others, ordinary, lr = pair(kind, options, dtype, gpu)
    set_grads(ours, 0)
    set_grads(others, 0)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        optimizer.step()
    torch.cuda.current_stream().wait_stream(side)
    ordinary.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    for step in range(1, 5):
        rate = 1e-2 / step
        lr.fill_(rate)
        ordinary.param_groups[0]["lr"] = rate
        set_grads(others, step)
        for p, q in zip(ours, others, strict=True):
            assert p.grad is not None
            assert q.grad is not None
            p.grad.copy_(q.grad)
            if step == 3:
                p.grad.fill_(torch.inf)
        graph.replay()
        if step != 3:
            ordinary.step()
    assert optimizer.skipped_steps == 1
    for p, q in zip(ours, others, strict=True):
        assert torch.equal(p, q)
    with pytest.raises(UsageError, match="capturable=True"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        ordinary.step()
