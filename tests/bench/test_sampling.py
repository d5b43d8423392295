"""`bench sample`: both programs draw the same images, and the rows say how long and where."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from sanactl.bench import sampling_ratio
from sanactl.bench.sampling_parts import PARTS
from sanactl.bench.sampling_ratio import Turns, measure_ratio
from sanactl.errors import SanactlError
from sanactl.files.progress import Progress
from sanactl.model import sampling_transformer
from tests.program import Program

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}
FEW = Turns(images=6, batch=3, steps=2, rounds=2)


def test_rows() -> None:
    attention = sampling_transformer.linear_attention
    row, base = measure_ratio(["tiny", "base"], FEW, **CPU)
    assert (row["metric"], row["model"], row["program"]) == ("sampling_ratio", "tiny", "SanaPipeline")
    assert row["ratio_range"][0] <= row["value"] <= row["ratio_range"][1]
    assert row["cpu_ratio"] > 0
    for score in row, base:
        for parts, seconds in (
            (score["parts"], score["seconds"]),
            (score["their_parts"], score["their_seconds"]),
        ):
            assert tuple(parts) == PARTS and all(value > 0 for value in parts.values())
            assert sum(parts.values()) < 10 * seconds
    assert base["apart"] < 0.1
    # The watch on the parts is gone.
    assert sampling_transformer.linear_attention is attention


def test_a_long_run_says_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first turn of the first program, once."""
    said: list[str] = []

    class Told(Progress):
        def note(self, line: str) -> None:
            said.append(line)

    list(measure_ratio(["tiny"], FEW, **CPU, progress=Told()))
    assert not said
    monkeypatch.setattr(sampling_ratio, "_LONG", 0.0)
    list(measure_ratio(["tiny"], FEW, **CPU, progress=Told()))
    assert len(said) == 1 and re.fullmatch(
        r"tiny: a turn takes \d+ s, so about \d+ minutes are left", said[0]
    )


def test_other_images_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling_transformer, "feed_forward", lambda ff, image: image)
    with pytest.raises(SanactlError, match=r"tiny: images of sanactl and of SanaPipeline differ by"):
        list(measure_ratio(["tiny"], FEW, **CPU))


def test_the_batch_has_to_divide_the_images(
    sanactl: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = sanactl.fails("bench", "sample", "-n", "20", "-b", "8", code=2)
    assert "--images 20 is not a multiple of the batch, 8" in line
    assert "no such model" in sanactl.fails("bench", "sample", "--model", "huge", code=2)
    assert set(sampling_ratio.MODELS) == {"mid", "base", "tiny"}
