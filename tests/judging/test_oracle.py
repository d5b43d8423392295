"""The oracle: the detector's verdicts as a judge's."""

from __future__ import annotations

import numpy as np
import pytest

from sanactl.errors import InputError
from sanactl.judging.registry import open_judge
from sanactl.shapes.prompts import sample_prompt, scene_for
from sanactl.shapes.render import render
from sanactl.shapes.vocabulary import TASKS


def test_right_and_wrong_pictures_of_every_task() -> None:
    rng = np.random.default_rng(0)
    records = [sample_prompt(rng, tag) for tag in TASKS]
    right = [render(scene_for(r, rng)) for r in records]
    oracle = open_judge("oracle")
    assert oracle.name == "oracle"
    assert [v.verdict for v in oracle.judge(right, records)] == ["yes"] * len(TASKS)
    blank = [np.full((64, 64, 3), 128, np.uint8)] * len(TASKS)
    assert [v.verdict for v in oracle.judge(blank, records)] == ["no"] * len(TASKS)


def test_confidence_follows_the_detector() -> None:
    rng = np.random.default_rng(1)
    record = {
        "tag": "colors",
        "include": [{"class": "star", "count": 1, "color": "red"}],
        "prompt": "a red star",
    }
    clear = render(scene_for(record, rng))
    faded = (clear.astype(np.float32) * 0.5 + 128 * 0.5).astype(np.uint8)
    other = render(scene_for({**record, "include": [{"class": "star", "count": 1, "color": "blue"}]}, rng))
    blank = np.full((64, 64, 3), 128, np.uint8)
    scores = [v.score for v in open_judge("oracle").judge([clear, faded, other, blank], [record] * 4)]
    assert scores[0] > 0.9 > scores[1]
    assert max(scores[2:]) < 0


def test_a_plain_prompt_cannot_be_judged_by_rules() -> None:
    with pytest.raises(InputError, match="no 'tag'"):
        open_judge("oracle").judge([np.full((64, 64, 3), 128, np.uint8)], [{"prompt": "a heart"}])


@pytest.mark.parametrize("side", [16, 1100])
def test_an_image_of_another_size_is_named(side: int) -> None:
    record = {"path": "a.png", "prompt": "x", "tag": "counting", "include": [{"class": "heart", "count": 1}]}
    with pytest.raises(InputError, match=rf"a\.png: {side} x {side} pixels"):
        open_judge("oracle").judge([np.full((side, side, 3), 128, np.uint8)], [record])
