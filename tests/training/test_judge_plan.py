"""`train-judge --dry-run`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sanactl.judging.backends.vlm_load import load_vlm
from tests.judging.tiny_models import make
from tests.program import Program
from tests.training.judge_set import labelled, write_records


def test_a_dry_run_tells_images_steps_and_memory(
    tmp_path: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = make("smolvlm", tmp_path / "smolvlm")
    records = write_records(labelled(tmp_path), tmp_path / "r.jsonl")
    few = ("train-judge", records, "--model", model, "--dry-run", "-o", tmp_path / "judge")
    (plan,) = sanactl(*few, "--held-out-share", "0.3", "--epochs", "2", "-b", "5")
    assert (plan["metric"], plan["judge"]) == ("train_plan", str(tmp_path / "judge"))
    both = [plan["images"] + plan["held_out_images"], plan["right"] + plan["held_out_right"]]
    assert both == [36, 16] and plan["images"] == plan["right"] + plan["wrong"]
    assert plan["prompts"] + plan["held_out_prompts"] == 12 and plan["held_out_prompts"] == 4
    assert plan["steps"] == -(-2 * plan["images"] // 5)
    loaded, _ = load_vlm(str(model), device=torch.device("cpu"), dtype=torch.float32)
    count = sum(p.numel() for p in loaded.parameters())
    assert plan["trained_parameters"] == plan["parameters"] == count
    assert plan["training_memory"] == {
        "weights": 4 * count, "gradients": 4 * count, "optimizer": 8 * count, "total": 16 * count
    }  # fmt: skip
    (small,) = sanactl(*few, "--lora", "2", "--quantize", "4bit")
    assert small["trained_parameters"] < count / 4
    assert small["training_memory"]["weights"] < 4 * small["parameters"]
    assert not (tmp_path / "judge").exists()
    assert "--dry-run is for --model" in sanactl.fails("train-judge", records, "--dry-run", code=2)
