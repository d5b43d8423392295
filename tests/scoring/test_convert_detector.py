"""`convert-detector`: mmdet's Mask2Former in transformers gives what mmdet's own definition gives."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from sanactl.cli.app import main
from sanactl.prompts.geneval.vocabulary import OBJECTS
from sanactl.scoring.detectors import convert
from tests.program import Program
from tests.scoring.mmdet_model import MMDet, random_state


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def images() -> Iterator[torch.Tensor]:
    """Two images, in float64 like all that is computed meanwhile: rounding does not hide a small difference."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    torch.set_default_dtype(before)


def outputs(folder: str, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    from transformers import Mask2FormerForUniversalSegmentation

    model, info = Mask2FormerForUniversalSegmentation.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    assert not info["unexpected_keys"]
    assert not [n for n in info["missing_keys"] if not re.fullmatch(convert.WITHOUT_WEIGHTS, n)]
    assert len(info["missing_keys"]) <= 3
    with torch.no_grad():
        found = model.eval().to(images.dtype)(pixel_values=images)
    return found.class_queries_logits, found.masks_queries_logits


@pytest.mark.parametrize("generation", [2, 3])
def test_transformers_gives_what_mmdets_order_gives(
    generation: int, sanactl: Program, images: torch.Tensor
) -> None:
    state = random_state(generation=generation)
    torch.save({"meta": {"epoch": 50}, "state_dict": state}, "m.pth")
    assert sanactl("convert-detector", "m.pth", "-o", "detector") == []
    assert "not the official detector's weights" in sanactl.said
    expected = MMDet(random_state())(images)
    for ours, theirs in zip(outputs("detector", images), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    config = json.loads(Path("detector/config.json").read_text())
    assert [config["id2label"][str(n)] for n in range(80)] == [*OBJECTS]
    assert config["sanactl"]["source"] == "m.pth"


def test_without_the_permutation_it_is_another_model(
    monkeypatch: pytest.MonkeyPatch, images: torch.Tensor
) -> None:
    torch.save({"state_dict": random_state()}, "m.pth")
    monkeypatch.setattr(convert, "in_hub_order", lambda value: value)
    assert main(["convert-detector", "m.pth", "-o", "detector"]) == 0
    classes, _ = outputs("detector", images)
    assert (classes - MMDet(random_state())(images)[0]).abs().max() > 0.01


def test_the_format_of_mmdets_publications_is_read(sanactl: Program) -> None:
    torch.save({"state_dict": random_state()}, "m.pth", _use_new_zipfile_serialization=False)
    assert sanactl("convert-detector", "m.pth") == []
    assert Path("m/model.safetensors").is_file()


def test_mmengines_objects_beside_the_weights_are_passed_over(
    sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = type("HistoryBuffer", (), {"__module__": "mmengine.logging"})
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "mmengine", ModuleType("mmengine"))
        patch.setitem(sys.modules, "mmengine.logging", ModuleType("mmengine.logging"))
        patch.setattr(sys.modules["mmengine.logging"], "HistoryBuffer", buffer, raising=False)
        torch.save({"message_hub": {"loss": buffer()}, "state_dict": random_state(generation=3)}, "m.pth")
    assert sanactl("convert-detector", "m.pth", "-o", "detector") == []


@pytest.mark.parametrize("old", [True, False])
def test_a_file_that_would_run_code_is_refused(old: bool, sanactl: Program) -> None:
    class Evil:
        def __reduce__(self):
            return eval, ("open('ran', 'w')",)

    torch.save(
        {"state_dict": {**random_state()}, "x": Evil()}, "m.pth", _use_new_zipfile_serialization=not old
    )
    assert "m.pth" in sanactl.fails("convert-detector", "m.pth")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"panoptic_head.cls_embed.weight": None}, "the tensor panoptic_head.cls_embed.weight is missing"),
        ({"panoptic_head.cls_embed.bias": None}, "lacks"),
        ({"roi_head.x.weight": torch.zeros(2)}, "is none of a Mask2Former with a Swin backbone"),
        ({"panoptic_head.query_embed.weight": torch.zeros(2, 3)}, "has another shape for"),
    ],
)  # fmt: skip
def test_another_model_is_one_line(
    change: dict[str, torch.Tensor | None], said: str, sanactl: Program
) -> None:
    state = {name: t for name, t in {**random_state(), **change}.items() if t is not None}
    torch.save({"state_dict": state}, "m.pth")
    assert said in sanactl.fails("convert-detector", "m.pth", "-o", "detector")


def test_a_damaged_download_is_told_by_its_name(sanactl: Program) -> None:
    torch.save({"state_dict": random_state()}, "mask2former_20220504_001756-743b7d99.pth")
    assert "not as its name says" in sanactl.fails(
        "convert-detector", "mask2former_20220504_001756-743b7d99.pth"
    )
