"""`eval detector-check`, and the check before every scoring run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sanactl.files.images import write_png
from sanactl.scoring.clip_model import ClipModel
from sanactl.scoring.detectors import check
from sanactl.scoring.detectors.mask2former import Mask2FormerDetector
from sanactl.scoring.detectors.shapes import ShapesDetector
from tests.program import Program
from tests.scoring.tiny_models import save_clip, save_mask2former


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_mask2former(folder / "detector", ["circle", "square"])
    save_clip(folder / "clip")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_png(np.full((64, 64, 3), 99, dtype=np.uint8), tmp_path / "a.png")
    record = {"kind": "image", "path": "a.png", "prompt": "a circle", "tag": "single_object", "prompt_id": "0",
              "include": [{"class": "circle", "count": 1}]}  # fmt: skip
    Path("images.jsonl").write_text(json.dumps(record))


def chosen(models: Path) -> tuple[str, ...]:
    return (
        "--detector",
        f"mask2former:{models / 'detector'}",
        "--colors",
        str(models / "clip"),
        "--device",
        "cpu",
    )


def test_a_sound_machine_passes(models: Path, sanactl: Program) -> None:
    (score,) = sanactl("eval", "detector-check", *chosen(models))
    assert (score["metric"], score["device"], score["dtype"]) == ("detector_check", "cpu", "float32")
    assert set(score["tasks"]) == {
        "class probabilities", "mask probabilities", "vectors of images", "vectors of texts",
    }  # fmt: skip
    assert 0 < score["value"] < 1e-3
    assert score["detector"] == "mask2former:detector (port)"
    assert score["colors"] == "clip"


def wrong(self: Any, images: Any) -> Any:
    """As a kernel that is missing: what was in memory."""
    return [(logits * 0, masks, sizes) for logits, masks, sizes in right(self, images)]


right = Mask2FormerDetector.outputs


def test_wrong_numbers_end_with_one_line(
    models: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_device(self: Any, images: Any) -> Any:
        return (right if self.dtype == torch.float64 else wrong)(self, images)

    monkeypatch.setattr(Mask2FormerDetector, "outputs", on_device)
    said = sanactl.fails("eval", "detector-check", *chosen(models))
    assert "its class probabilities on cpu differ from the CPU's by" in said
    assert "at most 0.001 is allowed; scores would be wrong" in said
    assert sanactl("eval", "geneval", "images.jsonl", *chosen(models), code=1) == []
    assert "scores would be wrong" in sanactl.said
    assert not Path("geneval.jsonl").exists()


def test_nan_is_a_difference(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = ClipModel(str(models / "clip"), torch.device("cpu"))
    assert max(check.differences(clip).values()) < 1e-5
    images = ClipModel.images
    monkeypatch.setattr(
        ClipModel,
        "images",
        lambda self, given: images(self, given) * (1 if self.dtype == torch.float64 else np.nan),
    )
    assert check.differences(clip)["vectors of images"] == float("inf")


def test_a_scoring_run_checks_once(models: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*more: str) -> bool:
        sanactl("eval", "geneval", "images.jsonl", *chosen(models), "--detections", "off", *more)
        return "checking mask2former:detector (port) on cpu against the CPU in float64, once" in sanactl.said

    assert run()
    assert not run()
    assert not run("--dtype", "bf16")
    with monkeypatch.context() as patch:
        patch.setattr("torch.__version__", "9.0")
        assert run()
    for expected in (True, False):
        sanactl("eval", "clip", "images.jsonl", "--model", str(models / "clip"), "--device", "cpu")
        assert ("checking clip on cpu" in sanactl.said) is expected


def test_the_built_in_detector_is_checked_by_what_was_drawn(
    sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    (score,) = sanactl("eval", "detector-check")
    assert (score["detector"], score["value"]) == ("shapes-1", 0)
    monkeypatch.setattr(ShapesDetector, "detect", lambda self, images, classes: [[] for _ in images])
    assert "shapes-1 does not find what was drawn for" in sanactl.fails("eval", "detector-check")
