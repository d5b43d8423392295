"""`bench train`: the two programs train the same model on the same data, in turns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sanactl.bench.train_speed import measure_train_speed
from sanactl.bench.training_loops import prepare, train_ours, train_theirs
from sanactl.bench.training_parts import PARTS
from sanactl.checkpoint.open import open_checkpoint
from sanactl.data.encoded import EncodedData
from sanactl.errors import SanactlError
from sanactl.training.choices import finetune_settings
from tests.program import Program


def test_both_programs_take_steps_when_they_are_told(tmp_path: Path) -> None:
    prepare(tmp_path, "tiny", (3, 9))
    checkpoint = open_checkpoint(tmp_path / "model.st")
    chosen: dict[str, Any] = {
        "steps": 100,
        "batch_size": 4,
        "optimizer": "adamw",
        "device": "cpu",
        "lr": 1e-3,
    }
    settings = replace(finetune_settings(checkpoint, **chosen), warmup=1)
    found: dict[str, list[Any]] = {}
    for program in (train_ours, train_theirs):
        answers = found.setdefault(program.__name__, [])
        program(checkpoint, EncodedData(tmp_path / "data", 0), settings, iter([2, 1]), answers.append)
        assert len(answers) == 3  # the first is for the step before the first turn
        # Random weights predict little: the loss is the velocity's square, 2 on random latents.
        assert all(1 < answer["loss"] < 4 for answer in answers)
    for answer in found["train_ours"][1:]:
        assert sum(answer[part] for part in PARTS) == pytest.approx(answer["seconds"], rel=0.2)
        assert answer["cpu_seconds"] > 0
        assert answer["forward"] > 0
        assert answer["backward"] > 0
        assert answer["rest"] < 0.5 * answer["seconds"]


def test_what_a_program_says_last_is_the_error() -> None:
    with pytest.raises(SanactlError, match=r"'ours' failed: .*no_such_setting"):
        measure_train_speed("tiny", {"batch_size": 1, "no_such_setting": 3}, steps=1, rounds=1)


@pytest.mark.slow
def test_the_command(sanactl: Program, place: Path) -> None:
    (row,) = sanactl("bench", "train", "--model", "tiny", "-b", "2", "--steps", "1", "--rounds", "1")
    assert (row["metric"], row["model"]) == ("train_step", "tiny")
    assert row["value"] == pytest.approx(row["seconds"] / row["their_seconds"])
    assert row["ratios"][0] <= row["value"] <= row["ratios"][1]
    assert row["cpu_ratio"] > 0
