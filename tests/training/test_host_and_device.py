"""What a step costs beside its arithmetic: one read from the device, data read while it computes, one pass of the average."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch.utils._python_dispatch import TorchDispatchMode

from sanactl.bench.random_models import CONFIGS
from sanactl.bench.random_training import random_checkpoint, random_encoded
from sanactl.checkpoint.open import Checkpoint
from sanactl.data.encoded import EncodedData
from sanactl.training.average import Average
from sanactl.training.choices import finetune_settings
from sanactl.training.conditions import Conditions
from sanactl.training.finetune import finetune
from sanactl.training.gradient import BatchGradient
from sanactl.training.loop import TrainingLoop
from sanactl.training.sharding import clip_gradients
from sanactl.training.transfer import sent, to_send
from tests.training.test_finetune import Stopper

# Operations that make a Python value of a tensor, or a tensor whose size depends on values.
_READS = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "unique")


class Reads(TorchDispatchMode):
    """The names of the operations that read values, and of the calls of `tolist`, which no mode sees on a CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.found: list[str] = []
        self.counts = True
        tolist = torch.Tensor.tolist

        def told(tensor: torch.Tensor) -> Any:
            self._see("tolist")
            return tolist(tensor)

        monkeypatch.setattr(torch.Tensor, "tolist", told)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in _READS:
            self._see(name)
        return func(*args, **(kwargs or {}))

    def _see(self, name: str) -> None:
        if self.counts:
            self.found.append(name)

    def without(self, function: Any) -> Any:
        """The function, whose reads do not count: of tensors that are on the CPU on any machine."""

        def called(*args: Any, **kwargs: Any) -> Any:
            before, self.counts = self.counts, False
            try:
                return function(*args, **kwargs)
            finally:
                self.counts = before

        return called


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Checkpoint, EncodedData]:
    """A checkpoint and its data, whose batches are computed as on a GPU: one part after the other."""
    monkeypatch.setattr("sanactl.training.parts.side_by_side", lambda *args: False)
    checkpoint = random_checkpoint(tmp_path / "model.st", {**CONFIGS["tiny"], "sample_size": 4}, pixels=128)
    return checkpoint, random_encoded(tmp_path / "data", checkpoint, images=8, tokens=(3, 12))


def trained(target: Path, tiny: tuple[Checkpoint, EncodedData], **options: Any) -> dict[str, Any]:
    """A run of four steps of four images in two parts."""
    checkpoint, data = tiny
    chosen: dict[str, Any] = {"optimizer": "adamw", "device": "cpu", "lr": 1e-3, "ema": 0.5}
    settings = finetune_settings(checkpoint, steps=4, batch_size=4, accumulate=2, **chosen)
    return finetune(checkpoint, data, settings, target=target, **options)


def test_a_step_reads_from_the_device_once(
    tmp_path: Path, tiny: tuple[Checkpoint, EncodedData], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses, the norm and what was asked for come in one piece; before the update, which depends on them."""
    reads = Reads(monkeypatch)
    steps: list[list[str]] = []
    gradient = TrainingLoop._gradient

    def watched(*args: Any) -> Any:
        reads.found = []
        with reads:
            answer = gradient(*args)
        steps.append(reads.found)
        return answer

    monkeypatch.setattr(TrainingLoop, "_gradient", watched)
    for name in ("draw", "read"):
        monkeypatch.setattr(BatchGradient, name, reads.without(getattr(BatchGradient, name)))
    trained(tmp_path / "out.st", tiny)
    assert steps == [["tolist"]] * 4
    with reads:
        assert torch.ones(()).isfinite()
    assert len(reads.found) == 2, "this one does read, and is seen"


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, math.nan, math.inf, 1e30])
@pytest.mark.parametrize("largest", [0.1, math.inf])
def test_clipping_is_torchs_and_leaves_what_is_not_finite(
    scale: float, largest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = ([torch.nn.Parameter(torch.zeros(n)) for n in (3, 5)] for _ in range(2))
    for p, q in zip(ours, theirs, strict=True):
        p.grad = torch.linspace(-1, 1, len(p)) * scale
        q.grad = p.grad.clone()
    reads = Reads(monkeypatch)
    with reads:
        norm = clip_gradients(ours, largest)
    assert not reads.found
    if norm.isfinite():
        assert torch.equal(norm, torch.nn.utils.clip_grad_norm_(theirs, largest))
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=0, equal_nan=True)


def test_reading_ahead_changes_nothing_and_reads_nothing_twice(
    tmp_path: Path, tiny: tuple[Checkpoint, EncodedData], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does an interruption, whose step that was read ahead is read again."""
    count = 0
    read = Conditions.read

    def counted(*args: Any) -> Any:
        nonlocal count
        count += 1
        return read(*args)

    monkeypatch.setattr(Conditions, "read", counted)
    trained(tmp_path / "ahead.st", tiny)
    assert count == 4 * 2
    assert not trained(tmp_path / "parts.st", tiny, progress=Stopper(2, signal.SIGTERM))["finished"]
    trained(tmp_path / "parts.st", tiny)
    monkeypatch.setattr(BatchGradient, "prepare", lambda *args: None)
    trained(tmp_path / "plain.st", tiny)
    results = {(tmp_path / name).read_bytes() for name in ("ahead.st", "parts.st", "plain.st")}
    assert len(results) == 1


def test_the_next_step_is_read_before_the_host_waits(
    tmp_path: Path, tiny: tuple[Checkpoint, EncodedData], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Conditions, "read", noted(said, "read", Conditions.read))
    monkeypatch.setattr(torch.Tensor, "backward", noted(said, "backward", torch.Tensor.backward))
    monkeypatch.setattr("sanactl.training.loop.clip_gradients", noted(said, "clip", clip_gradients))
    trained(tmp_path / "out.st", tiny)
    step = ["backward", "read", "backward"]
    assert said == ["read", *[*step, "read", "clip"] * 3, *step, "clip"]


def noted(said: list[str], name: str, function: Any) -> Any:
    """The function, which also adds a name to a list."""

    def called(*args: Any, **kwargs: Any) -> Any:
        said.append(name)
        return function(*args, **kwargs)

    return called


def test_tensors_are_pinned_for_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    tensor = torch.ones(2)
    assert sent(to_send(tensor, torch.device("cpu")), torch.device("cpu")) is tensor
    assert not pinned
    assert to_send(tensor, torch.device("cuda")) is tensor
    assert len(pinned) == 1


def test_the_average_is_diffusers_in_one_pass() -> None:
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(n, 7)) for n in (1, 5)]
    ours, theirs = (kind(weights, decay=0.6) for kind in (Average, EMAModel))
    for step in range(8):
        with torch.no_grad():
            for p in weights:
                p.add_(torch.randn_like(p))
        ours.step(weights)
        theirs.step(weights)
        assert ours.cur_decay_value == theirs.cur_decay_value
        for p, a, b in zip(weights, ours.shadow_params, theirs.shadow_params, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
            assert not a.requires_grad
            assert step or torch.equal(a, p)
