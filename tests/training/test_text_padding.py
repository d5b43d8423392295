"""`--text-padding trim`: padding that no text reaches is left out, and the steps are those with it, up to rounding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sanactl.bench.random_models import CONFIGS
from sanactl.bench.random_training import random_checkpoint, random_encoded
from sanactl.errors import UsageError
from sanactl.training.choices import check_choices, finetune_settings
from sanactl.training.conditions import Conditions
from sanactl.training.finetune import finetune


def test_steps_are_those_with_all_padding(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(tmp_path / "model.st", {**CONFIGS["tiny"], "sample_size": 4}, pixels=128)
    data = random_encoded(tmp_path / "data", checkpoint, images=8, tokens=(3, 40))
    chosen: dict[str, Any] = {"steps": 3, "batch_size": 4, "optimizer": "adamw", "device": "cpu", "lr": 1e-3}
    trimmed = finetune_settings(checkpoint, **chosen)
    losses: dict[str, list[float]] = {}
    for settings in (trimmed, replace(trimmed, text_padding="full")):
        found = losses.setdefault(settings.text_padding, [])

        def add(point: dict[str, Any], found: list[float] = found) -> None:
            found.append(point["loss"])

        finetune(
            checkpoint,
            data,
            settings,
            target=tmp_path / f"{settings.text_padding}.st",
            on_step=add,
        )
    assert losses["trim"] == pytest.approx(losses["full"], rel=1e-5)
    assert len(losses["trim"]) == 3


def test_the_length_is_the_next_of_a_few(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(tmp_path / "model.st", {**CONFIGS["tiny"], "sample_size": 4}, pixels=128)
    data = random_encoded(tmp_path / "data", checkpoint, images=8, tokens=(17, 290))
    settings = finetune_settings(checkpoint, batch_size=4)
    conditions = Conditions(checkpoint, data, settings, torch.device("cpu"))
    full = Conditions(checkpoint, data, replace(settings, text_padding="full"), torch.device("cpu"))
    lengths = set()
    for position in range(8):
        (_, text, mask), (_, whole, _) = (c.batch([position], [False]) for c in (conditions, full))
        lengths.add(text.shape[1])
        assert whole.shape[1] == 300
        assert torch.equal(text, whole[:, : text.shape[1]])
        assert mask.sum() <= text.shape[1] < 300 or text.shape[1] == 300
    assert lengths <= {32, 64, 96, 128, 192, 256, 300}
    assert len(lengths) > 1
    assert conditions.batch([0, 1], [True, True])[1].shape[1] == 16  # the empty prompt


def test_an_unknown_padding_is_named() -> None:
    with pytest.raises(UsageError, match="--text-padding half: choose one of trim, full"):
        check_choices(optimizer="adamw", schedule="constant", scale_lr="none", text_padding="half")
