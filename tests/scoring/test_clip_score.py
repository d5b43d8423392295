"""`eval clip` on a tiny random CLIP, against a computation of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sanactl.cli.app import main
from sanactl.files.images import write_png
from sanactl.scoring.clip_model import ClipModel
from sanactl.scoring.intervals import mean_of_prompts
from tests.program import Program
from tests.scoring.tiny_models import save_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "tiny-clip", length=24)


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Two images of each of six prompts, the last longer than CLIP takes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent))  # a check that has passed is not made again
    rng = np.random.default_rng(0)
    prompts = ["a red photo", "Blue &amp; green", "of   object", "x", "", "yellow photo of " * 9]
    found = []
    for number in range(12):
        image = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        large = Image.fromarray(image).resize((40 + number, 36), Image.Resampling.NEAREST)
        write_png(np.array(large), tmp_path / f"{number}.png")
        found.append(
            {
                "kind": "image",
                "path": f"{number}.png",
                "prompt": prompts[number // 2],
                "prompt_id": str(number // 2),
            }
        )
    Path("images.jsonl").write_text("".join(json.dumps(r) + "\n" for r in found))
    return found


def expected(clip: Path, record: dict[str, Any]) -> float:
    """transformers' own processor and tokenizer, one pair at a time."""
    from transformers import AutoTokenizer, CLIPModel

    model, tokenizer = CLIPModel.from_pretrained(clip).double(), AutoTokenizer.from_pretrained(clip)
    text = record["prompt"].replace("&amp;", "&")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    # The first 22 tokens between the two special ones.
    ids = [tokenizer.bos_token_id, *ids[:22], tokenizer.eos_token_id]
    picture = Image.open(record["path"]).convert("RGB")
    w, h = picture.size
    picture = picture.resize(
        (32, int(32 * h / w)) if w < h else (int(32 * w / h), 32), Image.Resampling.BICUBIC
    )
    left, top = round((picture.width - 32) / 2), round((picture.height - 32) / 2)
    pixels = np.array(picture.crop((left, top, left + 32, top + 32)), dtype=np.float64) / 255
    pixels = (pixels - (0.48145466, 0.4578275, 0.40821073)) / (0.26862954, 0.26130258, 0.27577711)
    with torch.no_grad():
        out = model(input_ids=torch.tensor([ids]), pixel_values=torch.tensor(pixels).permute(2, 0, 1)[None])
    return float(out.logits_per_image[0, 0])


def test_scores_are_those_of_an_own_computation(
    clip: Path, records: list[dict[str, Any]], sanactl: Program
) -> None:
    *images, score = sanactl("eval", "clip", "images.jsonl", "--model", clip, "--device", "cpu", "-b", "5")
    assert [{k: v for k, v in r.items() if k != "clip_score"} for r in images] == records
    found = [r["clip_score"] for r in images]
    np.testing.assert_allclose(found, [expected(clip, r) for r in records], atol=2e-3)
    assert np.std(found) > 0.05
    assert min(found) < 0  # not clamped
    assert score["value"] == pytest.approx(np.mean(found), abs=1e-4)
    assert score["ci"][0] < score["value"] < score["ci"][1]
    assert (score["metric"], score["model"], score["dtype"]) == ("clip", "tiny-clip", "float32")
    assert (score["images"], score["prompts"], score["truncated"]) == (12, 6, 2)
    assert score["model_digest"].startswith("sha256:")
    assert "of 2 images the prompt is longer than CLIP takes" in sanactl.said

    least = sorted(found)[6]
    passed = sanactl("filter", "clip.jsonl", "--where", f"clip_score > {least}")
    assert [r["path"] for r in passed if r["kind"] == "image"] == [
        r["path"] for r in images if r["clip_score"] > least
    ]


def test_another_text_than_the_prompt(clip: Path, records: list[dict[str, Any]], sanactl: Program) -> None:
    texts = ["red photo", None, "", "yellow"]
    rows = [{**r, "long": text, "clip_score": 1.5} for r, text in zip(records, texts, strict=False)]
    del rows[1]["long"]
    Path("r.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    options = ("--model", clip, "--device", "cpu", "-b", "2", "--text-field")
    *images, score = sanactl("eval", "clip", "r.jsonl", *options, "long")
    assert [r.pop("long_clip_score", None) for r in images] == [
        pytest.approx(expected(clip, {**r, "prompt": r["long"]}), abs=2e-3) if r.get("long") else None
        for r in rows
    ]
    assert images == rows  # the prompt's score is as it was
    assert (score["metric"], score["images"]) == ("clip_long", 2)
    assert "2 images without a text in 'long' have no score" in sanactl.said
    assert sanactl("eval", "clip", "r.jsonl", *options, "other", "-o", "o.jsonl", code=1) == rows
    assert "no record has a text in the field 'other'" in sanactl.said
    assert not Path("o.jsonl").exists()
    assert "its clip_score is '1.5', not text" in sanactl.fails(
        "eval", "clip", "r.jsonl", *options, "clip_score"
    )


def test_a_long_text_is_cut_before_its_end_token(clip: Path) -> None:
    model = ClipModel(str(clip), torch.device("cpu"))
    text = "red photo of " * 20
    (row,) = model.tokens([text]).tolist()
    assert len(row) == model.longest == 24
    assert row[-1] == model.tokens(["red"])[0, -1]
    assert model.is_truncated([text, "red"]) == [True, False]


def test_a_stopped_run_goes_on(
    clip: Path, records: list[dict[str, Any]], sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    of_images = ClipModel.images

    def stopped(self: ClipModel, images: Any) -> torch.Tensor:
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return of_images(self, images)

    monkeypatch.setattr("sanactl.scoring.metrics.clip.ensure_checked", lambda *given: None)
    monkeypatch.setattr(ClipModel, "images", stopped)
    command = ["eval", "clip", "images.jsonl", "--model", str(clip), "--device", "cpu", "-b", "6"]
    assert main(command) == 130
    *images, score = sanactl(*command)
    assert (len(images), score["images"]) == (12, 12)
    assert calls == [6, 6, 6]
    assert "6 scores were taken over" in sanactl.said


def test_what_is_no_clip_is_one_line(records: list[dict[str, Any]], sanactl: Program) -> None:
    Path("bert").mkdir()
    Path("bert/config.json").write_text('{"model_type": "bert"}')
    assert "bert: a bert model, not a CLIP (model_type clip)" in sanactl.fails(
        "eval", "clip", "images.jsonl", "-m", "bert"
    )
    assert "no such folder" in sanactl.fails("eval", "clip", "images.jsonl", "-m", "./nowhere")


def test_the_interval_of_a_mean_covers_it() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        prompts = rng.normal(25, 3, 40)[:, None] + rng.normal(0, 2, (40, 4))
        found = mean_of_prompts(prompts.tolist())
        assert found.low is not None
        assert found.high is not None
        covered += int(found.low[0] < 25 < found.high[0])
    assert 0.91 < covered / 400 < 0.98
    assert mean_of_prompts([[1.0], [3.0]]).low is None
