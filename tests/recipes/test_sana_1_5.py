"""The paper as one script, on the built-in world, and again: what is done is not done twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sanactl.shapes.prompts import load_eval_prompts
from tests.recipes.running import run

SMALL = {
    "WORLD": "shapes",
    "PROMPTS": "prompts.jsonl",
    "DEEP": "12",
    "DEPTHS": "6",
    "STEPS": "2",
    "RECOVERY_STEPS": "2",
    "LIMIT": "2",
    "IMAGES": "2",
}


@pytest.mark.slow
def test_the_paper_as_one_script(tmp_path: Path) -> None:
    lines = [json.dumps({**prompt, "kind": "prompt"}) for prompt in load_eval_prompts()[:61:60]]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    said = run("sana-1.5.sh", tmp_path / "run", SMALL)
    made = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"fresh.st", "grown.st", "pruned-d6.st", "recovered-d6.st", "judged.jsonl", "report.html"} <= made
    assert {
        "base.geneval.jsonl",
        "grown.geneval.jsonl",
        "recovered-d6.geneval.jsonl",
        "scaling.jsonl",
    } <= made
    assert "the last two are dropped" in said
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("*.st")}
    again = run("sana-1.5.sh", tmp_path / "run", SMALL)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("*.st")} == before
    assert "training fresh.st" not in again
