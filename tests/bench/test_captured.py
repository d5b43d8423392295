"""A step in a CUDA graph: how it is captured, with a stand-in for CUDA, and its rows where there is no GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from sanactl.bench import captured, optim, optimizers
from sanactl.bench.captured import NEEDS_GPU, WARM, capture
from sanactl.bench.parts import do_part
from sanactl.bench.rows import Rows, read_rows
from sanactl.errors import UsageError
from sanactl.optim import CAME, CAME8bit

CPU = torch.device("cpu")
CUDA: Any = SimpleNamespace(type="cuda")
TURNS = ("adamw-fused", "came8bit", "adamw-fused-captured", "came8bit-captured")


class Graph:
    """In the place of `torch.cuda.CUDAGraph`: a replay takes the step again."""

    def __init__(self, step: Callable[[], Any]) -> None:
        self.replay = step


def stand_in(monkeypatch: pytest.MonkeyPatch, step: Callable[[], Any], done: list[str]) -> None:
    """CUDA's streams and graphs by names alone; `done` gets what is done with them."""

    class Stream:
        def __init__(self, name: Any = "side") -> None:
            self.name = name if isinstance(name, str) else "side"

        def wait_stream(self, other: Stream) -> None:
            done.append(f"{self.name} waits for {other.name}")

    @contextlib.contextmanager
    def within(what: str) -> Iterator[None]:
        done.append(f"begin {what}")
        yield
        done.append(f"end {what}")

    ordinary = Stream("ordinary")
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: ordinary)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: within(stream.name))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: Graph(step))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: within("graph"))


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    ps = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((200, 100), (40,))]
    for p in ps:
        p.grad = torch.randn(p.shape, generator=generator)
    return ps


@pytest.mark.parametrize("kind", [CAME, CAME8bit])
def test_a_step_is_warmed_up_beside_and_replayed(kind: type[CAME], monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in's capture runs the step, so there is one step more than on a GPU. Nothing moves to another place."""
    ours, others = parameters(), parameters()
    optimizer, ordinary = kind(ours, lr=1e-2, capturable=True), kind(others, lr=1e-2)
    done: list[str] = []

    def step() -> None:
        done.append("step")
        optimizer.step()

    stand_in(monkeypatch, step, done)
    replay = capture(step, CUDA)
    assert done == [
        "side waits for ordinary",
        "begin side",
        *["step"] * WARM,
        "end side",
        "ordinary waits for side",
        "begin graph",
        "step",
        "end graph",
    ]
    places = [t.data_ptr() for p in ours for t in (p, p.grad, *optimizer.state[p].values()) if t is not None]
    for p, q in zip(ours, others, strict=True):
        assert p.grad is not None and q.grad is not None
    for _ in range(WARM + 1):
        ordinary.step()
    for number in range(2):
        for p, q in zip(ours, others, strict=True):
            assert p.grad is not None and q.grad is not None
            p.grad.mul_(number)  # the same memory, as a graph reads it
            q.grad.mul_(number)
        replay()
        ordinary.step()
    assert places == [
        t.data_ptr() for p in ours for t in (p, p.grad, *optimizer.state[p].values()) if t is not None
    ]
    assert all(torch.equal(p, q) for p, q in zip(ours, others, strict=True))


def test_a_cpu_has_no_graphs() -> None:
    with pytest.raises(UsageError, match=NEEDS_GPU):
        capture(lambda: None, CPU)


def test_rows_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "OPTIMIZERS", TURNS)
    assert do_part("optim-1.6b", Rows(tmp_path / "rows.jsonl", "optim-1.6b"), small=True) == 0
    rows = read_rows(tmp_path / "rows.jsonl")
    found = [(r["optimizer"], r["fault"]) for r in rows if r["table"] == "a step in a CUDA graph"]
    assert found == [(name, f"a captured step {NEEDS_GPU}") for name in ("adamw-fused", "came8bit")]
    eager = {r["optimizer"]: r for r in rows if r["table"] == "a step of an optimizer"}
    assert set(eager) == {"adamw-fused", "came8bit"} and all(r["ms"] > 0 for r in eager.values())


def test_rows_with_a_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph takes the step as it is: then the same numbers are measured as on a GPU."""

    def taken(step: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
        for _ in range(captured.WARM):
            step()
        return step

    monkeypatch.setattr(optim, "capture", taken)
    monkeypatch.setattr(optimizers, "OPTIMIZERS", TURNS)
    rows = Rows(tmp_path / "rows.jsonl", "optim")
    optimizers.measure_optimizers(rows, CPU, "tiny", torch.float32, blocks=1, steps=2)
    found = read_rows(rows.file)
    assert [(r["table"], r["optimizer"]) for r in found] == [
        ("a step of an optimizer", "adamw-fused"),
        ("a step of an optimizer", "came8bit"),
        ("a step in a CUDA graph", "adamw-fused"),
        ("a step in a CUDA graph", "came8bit"),
    ]
    eager, ours = found[1], found[3]
    assert ours["eager_ms"] == eager["ms"] and ours["adamw_ms"] == found[2]["ms"]
    assert ours["ms"] > 0 and ours["copy_share"] > 0 and ours["fault"] is None
