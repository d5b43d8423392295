"""`eval speed`: the same images by both programs, and scores that say what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sanactl.bench.programs import PROMPT, Parts, ours, theirs
from sanactl.bench.random_models import meta_modules
from sanactl.bench.speed import RANDOM, of_checkpoint
from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.open import open_checkpoint
from sanactl.model.conditioning import sampling_settings
from sanactl.model.flops import ImageCosts
from sanactl.report.run import read_run
from tests.program import Program


def test_both_programs_draw_the_same_image() -> None:
    """Else their times could not be compared."""
    checkpoint = open_checkpoint(asset("base.st"))
    settings = sampling_settings(checkpoint)
    parts: Parts = of_checkpoint(checkpoint, settings, torch.device("cpu"), torch.float32).parts
    own, other = ours(parts)(1, 4)[0].numpy(), np.asarray(theirs(parts)(1, 4)[0])
    assert own.shape == other.shape == (settings.height, settings.width, 3)
    assert own.std() > 5
    assert np.abs(own.astype(int) - other).max() <= 1


def test_scores_of_random_weights(sanactl: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = ("eval", "speed", "--random", "tiny", "--steps", "2", "-b", "3", "--rounds", "2")
    own, other = sanactl(*few)
    assert (own["metric"], own["program"], own["checkpoint"]) == ("speed", "sanactl", "tiny")
    assert (other["metric"], other["program"]) == ("speed_diffusers", "SanaPipeline")
    for score in own, other:
        low, high = score["value_range"]
        assert 0 < low <= score["value"] <= high and score["unit"] == "images/s"
        assert score["latency_range"][0] <= score["latency"] <= score["latency_range"][1]
        assert score["weights"] == "random" and score["batch"] == 3 and score["steps"] == 2
    assert own["ratio_range"][0] <= own["ratio"] <= own["ratio_range"][1]
    assert own["ratio"] == pytest.approx(own["value"] / other["value"], rel=0.5)
    assert own["parameters"] == sum(p.numel() for p in meta_modules("tiny")[0].parameters())
    assert [json.loads(line) for line in Path("speed.jsonl").read_text().splitlines()] == [own, other]
    # Twice the steps are nearly twice the work of the transformer, and nothing of the rest.
    (more,) = sanactl(*few[:4], "--steps", "4", "-b", "1", "--rounds", "1", "--no-diffusers", "-o", "x.jsonl")
    assert own["flops"] < more["flops"] < 2 * own["flops"]
    assert "ratio" not in more
    # The report's plot of speeds reads it.
    assert read_run([own], None).scores[0]["value"] == own["value"]


def test_flops_and_parameters_of_a_checkpoint(
    sanactl: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (score,) = sanactl("eval", "speed", "--steps", "2", "-b", "1", "--rounds", "1", "--no-diffusers")
    checkpoint = open_checkpoint(asset("base.st"))
    assert score["flops"] == ImageCosts(checkpoint, sampling_settings(checkpoint, steps=2)).of(PROMPT).total
    assert (score["parameters"], score["digest"]) == (checkpoint.num_parameters, checkpoint.digest)
    assert score["value"] == pytest.approx(1 / score["latency"], rel=1e-3)


def test_bad_input_is_one_line(sanactl: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no such shape" in sanactl.fails("eval", "speed", "--random", "SANA_9B", code=2)
    assert "leave out the checkpoint" in sanactl.fails("eval", "speed", "x.st", "--random", "tiny", code=2)
    assert "multiple of 32" in sanactl.fails(
        "eval", "speed", "--random", "SANA_0.6B", "--height", "100", code=2
    )
    assert "--steps" in sanactl.fails("eval", "speed", "--random", "tiny", "--steps", "0", code=2)
    monkeypatch.setattr("sanactl.bench.speed.free_memory", lambda device: 1 << 30)
    assert "1.07 GB are free" in sanactl.fails("eval", "speed", "--random", "SANA1.5_4.8B")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "one process" in sanactl.fails("eval", "speed", "--random", "tiny", code=2)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", [name for name in RANDOM if name != "tiny"])
def test_published_shapes_have_their_parameters(name: str) -> None:
    transformer, text_encoder, _ = meta_modules(RANDOM[name].size)
    billions = float(name.split("_")[1].removesuffix("B"))
    assert sum(p.numel() for p in transformer.parameters()) / 1e9 == pytest.approx(billions, rel=0.03)
    assert sum(p.numel() for p in text_encoder.parameters()) / 1e9 == pytest.approx(2.61, rel=0.01)
