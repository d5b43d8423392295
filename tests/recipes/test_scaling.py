"""Figures 3 and 8 on the built-in world in the smallest form, and again: what is done is not done twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.recipes.running import run

SMALL = {"PROMPTS": "6", "N": "2", "STEPS": "1 4", "DEPTHS": "4", "RECOVER": "1", "CALIBRATION": "1"}


@pytest.mark.slow
def test_both_figures(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    said = run("scaling.sh", folder, SMALL)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Small and large models" in page and "Few and many steps" in page
    front = [json.loads(line) for line in (folder / "budget-80G.jsonl").read_text().splitlines()]
    assert sum(r["chosen"] for r in front) == 1 and all(r["cost"]["flops"] > 0 for r in front)
    seconds = [json.loads(line) for line in (folder / "budget-seconds.jsonl").read_text().splitlines()]
    assert all(r["cost"]["seconds"] > 0 for r in seconds)
    assert said.count("judged and scored") == 6
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/samples/*.png")}
    (folder / "scaling-base-s4.jsonl").unlink()
    assert run("scaling.sh", folder, SMALL).count("judged and scored") == 1
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/*/samples/*.png")} == before
