"""The recipes of the fine-tuning set and of the judge's set in a small form, and again: what is done is not done twice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest

from tests.recipes.running import run_both

SFT = {"PROMPTS": "12", "IMAGES": "3", "STEPS": "2", "SEEDS": "1", "EACH": "1", "LIMIT": "6"}
JUDGE = {
    "PROMPTS": "12",
    "IMAGES": "3",
    "WARMUP": "1",
    "STEPS": "1",
    "POOL": "40",
    "TUNE": "--steps 2 -b 4 --held-out-share 0.4",
}


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_the_fine_tuning_set(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    out, _ = run_both("sft-set.sh", folder, SFT)
    assert re.search(r"correct less random: [+-]0\.\d{3} \[[+-]0\.\d{3}, [+-]0\.\d{3}\]", out)
    correct, random = records(folder / "correct.jsonl"), records(folder / "random.jsonl")
    assert len(correct) == len(random) > 6
    assert all(r["correct"] for r in correct)
    loaded = datasets.load_dataset(str(folder / "correct"), split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["text"] for row in loaded] == [r["prompt"] for r in correct]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".png", ".st")}
    again, _ = run_both("sft-set.sh", folder, SFT)
    assert again == out
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_the_judges_set(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    out, _ = run_both("judge-set.sh", folder, JUDGE)
    assert re.search(r"balanced_accuracy +0\.\d{3} .*0\.\d{3}", out)
    verdicts = [r["correct"] for r in records(folder / "balanced.jsonl")]
    assert sum(verdicts) == len(verdicts) / 2 > 3
    answers = [
        example["conversations"][1]["value"]
        for example in json.loads((folder / "nvila/train.json").read_text(encoding="utf-8"))
    ]
    assert answers.count("yes") == answers.count("no") == len(verdicts) // 2
    assert run_both("judge-set.sh", folder, JUDGE)[0] == out
