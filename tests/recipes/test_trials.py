"""Recipes that take an hour or more, in the trials of their headers, and again: what is done is not done twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recipes.running import run, run_both

EVIDENCE = {"SEEDS": "1", "STEPS": "2", "LIMIT": "6"}
DETECTOR = {"PROMPTS": "6", "HELD": "3", "STEPS": "2", "POOL": "40"}


def times(folder: Path) -> dict[Path, int]:
    """When each image, checkpoint and model of a run was written."""
    return {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.suffix in (".png", ".st", ".safetensors")
    }


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_claims(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    table, _ = run_both("evidence.sh", folder, EVIDENCE)
    for title in ("growth against scratch, 2 equal steps", "optimizers (figure 6)", "GenEval after pruning"):
        assert title in table
    before = times(folder)
    # A run that was stopped between a training's end and its record.
    (folder / "optimizer-came8bit-1.done.jsonl").unlink()
    assert run_both("evidence.sh", folder, EVIDENCE)[0] == table
    assert times(folder) == before


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_built_in_world_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run("make-shapes.sh", folder, {"DRY": "1"})
    assert {path.name for path in (folder / "assets").iterdir()} >= {"base.st", "grown.st", "judge", "vae"}
    before = {path: when for path, when in times(folder).items() if "assets" not in path.parts}
    run("make-shapes.sh", folder, {"DRY": "1"})
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_detector_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    said, _ = run_both("make-detector.sh", folder, DETECTOR)
    for images, count in (("held", 12), ("eval", 360), ("rendered", 360)):
        assert f"{images}: the verdicts agree on " in said and f" of {count} images" in said
    before = times(folder)
    assert run_both("make-detector.sh", folder, DETECTOR)[0] == said
    assert times(folder) == before
