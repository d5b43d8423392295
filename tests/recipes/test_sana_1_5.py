"""The paper as one script, on the built-in world, and again: what is done is not done twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = {
    "WORLD": "shapes",
    "DEEP": "12",
    "DEPTHS": "6",
    "STEPS": "2",
    "RECOVERY_STEPS": "2",
    "LIMIT": "2",
    "IMAGES": "2",
}


def run(folder: Path) -> str:
    """Runs the recipe in the environment of the tests; what it said."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **SMALL, "SANACTL_VENV": "active", "OMP_NUM_THREADS": "1", "PATH": path}
    done = subprocess.run(
        [str(ROOT / "recipes/sana-1.5.sh"), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
def test_the_paper_as_one_script(tmp_path: Path) -> None:
    said = run(tmp_path / "run")
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
    again = run(tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("*.st")} == before
    assert "training fresh.st" not in again
