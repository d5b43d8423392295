"""The memory plan against what training takes: bytes of live tensors, counted operation by operation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sanactl.bench.random_models import CONFIGS
from sanactl.bench.random_training import random_checkpoint, random_encoded
from sanactl.training import parts
from sanactl.training.finetune import FinetuneSettings, finetune
from sanactl.training.live import LiveBytes
from sanactl.training.memory_plan import plan_memory

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
