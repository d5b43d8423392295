"""The memory plan against what training takes: bytes of live tensors, counted operation by operation."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sanactl.bench.random_models import CONFIGS
from sanactl.bench.random_training import random_checkpoint, random_encoded
from sanactl.checkpoint.open import open_checkpoint
from sanactl.model import encoders
from sanactl.training import memory_plan, parts
from sanactl.training.encoder_memory import EncoderMemory, encoder_memory
from sanactl.training.finetune import FinetuneSettings, finetune
from sanactl.training.live import LiveBytes
from sanactl.training.memory_plan import MemoryPlan, plan_memory

# The published model's layout at an eighth of its width.
SHAPE = {**CONFIGS["1.6b"], "num_attention_heads": 8, "num_layers": 4, "num_cross_attention_heads": 4,
         "cross_attention_head_dim": 64, "cross_attention_dim": 256, "caption_channels": 128, "sample_size": 8}  # fmt: skip
SETTINGS = FinetuneSettings(
    steps=2,
    batch_size=2,
    height=128,
    width=128,
    complex_human_instruction=False,
    device="cpu",
    text_padding="full",
)


def test_live_bytes_are_those_of_storages_made_within() -> None:
    older = torch.zeros(1000)
    with LiveBytes() as live:
        view, half = older[:10], torch.ones(500)
        assert (live.live, live.peak) == (2000, 2000)
        more = half[:3], torch.ones(250) + torch.ones(250)
        assert (live.live, live.peak) == (3000, 5000)
        del half
        assert live.live == 3000  # a view holds it
        del more, view
        live.restart()
        assert (live.live, live.peak) == (0, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_checkpointing": True, "batch_size": 1},
        {"gradient_checkpointing": True, "precision": "bf16", "optimizer": "adamw", "ema": 0.9},
        {"accumulate": 2, "optimizer": "came"},
        {"lora": 4, "gradient_checkpointing": True},
        {"teacher": True, "precision": "bf16"},
        {"side_by_side": True, "batch_size": 4},
    ],
    ids=lambda changes: " ".join(changes) or "plain",
)
def test_the_plan_is_the_peak(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all tensors that a run makes, from the loading of the weights on."""
    changes = dict(changes)
    taught, together = changes.pop("teacher", False), changes.pop("side_by_side", False)
    monkeypatch.setattr(parts, "side_by_side", lambda *_: together)
    checkpoint = random_checkpoint(tmp_path / "model.st", SHAPE, pixels=128)
    data = random_encoded(tmp_path / "data", checkpoint, images=4)
    settings = replace(SETTINGS, **changes)
    teacher = checkpoint if taught else None
    # Beforehand, and kept for the run: its fake tensors would count.
    planned = plan_memory(checkpoint, settings, device=torch.device("cpu"), teacher=teacher, encoded=True)
    peaks: list[int] = []
    with LiveBytes() as live:
        finetune(
            checkpoint,
            data,
            settings,
            target=tmp_path / "trained.st",
            teacher=teacher,
            # What follows the last step is no part of the plan.
            on_step=lambda point: peaks.append(live.peak),
        )
    assert planned.total == pytest.approx(peaks[-1], rel=0.1)


def test_the_encoders_take_what_is_planned(place: Path) -> None:
    checkpoint = open_checkpoint("tiny.st")
    settings = replace(SETTINGS, max_sequence_length=16)
    planned = encoder_memory(checkpoint, settings)
    both = encoders.Encoders(
        checkpoint, max_sequence_length=16, complex_human_instruction=False, device="cpu"
    )
    modules = both.vae, both.text_encoder
    assert planned.weights == sum(t.nbytes for module in modules for t in module.parameters())
    images, captions = torch.zeros(3, 64, 64, 3, dtype=torch.uint8), ["a red circle"] * 64
    with LiveBytes() as pixels:
        both.latents(images)
    with LiveBytes() as text:
        both.texts(captions)
    assert planned.activations(3, 64, 64) == pytest.approx(pixels.peak, rel=0.1)
    assert replace(planned, vae="").activations(64, 64, 64) == pytest.approx(text.peak, rel=0.1)


def test_encoding_is_a_phase_of_a_step(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint("tiny.st")
    settings = replace(SETTINGS, max_sequence_length=16, batch_size=1)

    def plan(encoded: bool = False, **changes: Any) -> MemoryPlan:
        chosen = replace(settings, **changes)
        return plan_memory(checkpoint, chosen, device=torch.device("cpu"), encoded=encoded)

    monkeypatch.setattr(parts, "side_by_side", lambda *_: False)
    small, without = plan(), plan(encoded=True)
    assert small.total == without.total + small.parts["encoders"]
    # Encoders are released when a cache is filled.
    assert plan(cache=4).parts == without.parts
    monkeypatch.setattr(EncoderMemory, "activations", lambda self, *_: 10**9 if self.weights else 0)
    for large in (plan(), plan(cache=4)):
        assert large.parts["activations"] == 10**9
        assert "gradients" not in large.parts
        assert large.savers["data made by sanactl encode"] < 10**9
    later = plan(
        batch_size=2, accumulate=2
    ).parts  # a second part is encoded beside the gradients of the first
    assert later["gradients"] == without.parts["weights"]


def test_many_large_images_are_encoded_in_turn(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = encoders.Encoders(
        open_checkpoint("tiny.st"), max_sequence_length=16, complex_human_instruction=False, device="cpu"
    )
    images = torch.randint(0, 256, (5, 64, 96, 3), generator=torch.Generator().manual_seed(0)).byte()
    together, peaks = [], []
    for count in (5, 2, 1):
        monkeypatch.setattr(encoders, "PIXELS_TOGETHER", count * 64 * 96)
        with LiveBytes() as live:
            together.append(both.latents(images))
        peaks.append(live.peak)
    assert peaks[0] > 2 * peaks[1] > 3 * peaks[2]
    assert all(torch.allclose(latents, together[0], rtol=1e-4, atol=1e-5) for latents in together)


MEASURED = """
import torch
from sanactl.model.cpu import return_freed_memory
from sanactl.optim import build_optimizer

def of_process(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) * 1024

return_freed_memory()
p = torch.nn.Parameter(torch.zeros(3000, 3000))
optimizer = build_optimizer("adamw8bit", [("weight", p)], lr=1e-4)
for _ in range(2):
    p.grad = torch.full_like(p, 1e-3)
    before = of_process("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # the peak from now on
    optimizer.step()
print((of_process("VmHWM") - before) / p.nbytes)
"""


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel does not tell a part's peak"
)
def test_an_update_of_bitsandbytes_on_a_cpu_has_copies(tmp_path: Path) -> None:
    """They are made within one operation, where live tensors are not seen."""
    pytest.importorskip("bitsandbytes")
    said = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True).stdout
    assert float(said) == pytest.approx(memory_plan.COPIES_8BIT, rel=0.1)
    checkpoint = random_checkpoint(tmp_path / "model.st", SHAPE, pixels=128)
    settings = replace(
        SETTINGS, optimizer="adamw8bit", gradient_checkpointing=True, batch_size=2, accumulate=2
    )
    parts_of = plan_memory(checkpoint, settings, device=torch.device("cpu"), encoded=True).parts
    largest = max(math.prod(ref.shape) for ref in checkpoint.tensors.values())
    assert parts_of["activations"] >= memory_plan.COPIES_8BIT * largest * 4
