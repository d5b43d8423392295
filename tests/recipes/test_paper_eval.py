"""The paper's evaluation as one script: a dry run on the built-in world, and again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str, code: int = 0, **variables: str) -> str:
    """Runs the recipe in the environment of the tests; what it said."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    fixed = {"SANACTL_VENV": "active", "OMP_NUM_THREADS": "1", "PATH": path}
    done = subprocess.run(
        [str(ROOT / "recipes/paper-eval.sh"), *arguments],
        env={**os.environ, **fixed, **variables},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code, done.stderr
    return done.stderr


def test_without_a_checkpoint_it_says_how_it_is_called() -> None:
    assert run(code=2).startswith("usage: ")


def test_prompts_of_mjhq(tmp_path: Path) -> None:
    found = {"a1": {"category": "food", "prompt": "a bowl of süßes"}}
    command = [sys.executable, str(ROOT / "recipes/paper_eval.py"), "mjhq", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "not MJHQ-30K's meta_data.json" in done.stderr
    (tmp_path / "meta_data.json").write_text(json.dumps(found), encoding="utf-8")
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
    assert json.loads(done.stdout) == {"kind": "prompt", "id": "a1", **found["a1"]}


@pytest.mark.slow
@pytest.mark.timeout(1200)  # two minutes on 2 idle cores, and again in part
def test_the_whole_evaluation(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    said = run("", str(folder), DRY="1", LIMIT="6")
    assert "left out" not in said
    table = (folder / "table1.md").read_text()
    (row,) = [line for line in table.splitlines() if line.startswith("| base.st")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == 9 and "-" not in cells
    scores = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    assert {"speed", "speed_diffusers", "geneval", "clip", "fid", "dpg"} <= {s["metric"] for s in scores}
    page = (folder / "report.html").read_text()
    assert all(name in page for name in ("DPG", "FID", "CLIP"))
    before = {
        path: path.stat().st_mtime_ns for path in folder.glob("[a-s]*.jsonl") if path.name != "scores.jsonl"
    }
    (folder / "fid.jsonl").unlink()
    again = run("", str(folder), DRY="1", LIMIT="6")
    assert again.count("images were there already") == 1 and "6 of 6 images were there already" in again
    assert (folder / "fid.jsonl").exists()
    for path, when in before.items():
        assert path.name == "fid.jsonl" or path.stat().st_mtime_ns == when
    # Without models: one line for each stage, and the table of the speed alone.
    (folder / "few").mkdir()
    few = run(str(folder / "base.st"), str(folder / "few"), SAMPLING_STEPS="1")
    assert few.count("left out") == 3
    assert (folder / "few/table1.md").read_text().count("| base.st |") == 1
