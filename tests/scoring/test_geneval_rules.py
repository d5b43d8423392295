"""GenEval's rules against the published ones, written down anew from the official scorer's semantics."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanactl.errors import InputError, UsageError
from sanactl.prompts.geneval.vocabulary import COLORS, RELATIONS
from sanactl.scoring.detectors.protocol import Detected
from sanactl.scoring.detectors.registry import open_detector
from sanactl.scoring.detectors.shapes import detect_shapes
from sanactl.scoring.geneval.rules import TASKS, is_confident, relations, score_image
from sanactl.shapes import vocabulary
from sanactl.shapes.prompts import load_eval_prompts, scene_for
from sanactl.shapes.render import render
from tests.scoring.official_rules import published_relations, published_verdict

NAMES = ("bench", "cat", "dog")
# Both thresholds, as float64 and as the float32 nearest to them, which is above 0.3 and below 0.9.
SCORES = (0.2, 0.3, float(np.float32(0.3)), 0.5, 0.9, float(np.float32(0.9)), 0.95, 1.0)


def boxes():
    # Tenths are no whole number of float32, so that rounding matters where offset and tolerance nearly cancel.
    corner, side = (st.integers(0, top).map(lambda v: v / 10) for top in (480, 240))
    return st.tuples(corner, corner, side, side).map(lambda t: (t[0], t[1], t[0] + t[2], t[1] + t[3]))


def detections():
    # Few names, colours and scores, both thresholds among them, so that ties and near misses are frequent.
    one = st.builds(
        Detected,
        st.sampled_from(NAMES),
        st.sampled_from(COLORS[:3]),
        st.sampled_from(SCORES),
        boxes(),
    )
    return st.lists(one, max_size=24)


@st.composite
def prompt_records(draw):
    include = []
    for number in range(draw(st.integers(1, 3))):
        clause = {"class": draw(st.sampled_from(NAMES)), "count": draw(st.integers(1, 3))}
        if draw(st.booleans()):
            clause["color"] = draw(st.sampled_from(COLORS[:3]))
        if number and draw(st.booleans()):
            clause["position"] = [draw(st.sampled_from(RELATIONS)), draw(st.integers(0, number - 1))]
        include.append(clause)
    record = {"tag": draw(st.sampled_from(TASKS)), "include": include, "prompt": "a photo"}
    if draw(st.booleans()):
        record["exclude"] = [{"class": draw(st.sampled_from(NAMES)), "count": draw(st.integers(1, 18))}]
    return record


@settings(max_examples=200, deadline=None)
@given(detections(), prompt_records())
def test_verdicts_are_the_published_ones(found, record):
    verdict = score_image(found, record)
    assert (verdict["correct"], verdict["reason"]) == published_verdict(found, record)


@settings(max_examples=150, deadline=None)
@given(boxes(), boxes())
def test_relations_are_the_published_ones(a, b):
    assert set(relations(a, b)) == published_relations(a, b)
    inverse = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    assert {inverse[r] for r in relations(a, b)} == set(relations(b, a))


def one(name="cat", color="red", score=1.0, box=(0, 0, 10, 10)):
    return Detected(name, color, score, box)


def test_thresholds_are_exclusive_and_counting_is_stricter():
    record = {"tag": "single_object", "include": [{"class": "cat", "count": 1}]}
    assert not score_image([one(score=0.3)], record)["correct"]
    assert score_image([one(score=0.31)], record)["correct"]
    counting = {**record, "tag": "counting", "exclude": [{"class": "cat", "count": 2}]}
    assert score_image([one(score=0.95), one(score=0.9)], counting)["correct"]
    assert score_image([one(score=0.95), one(score=0.91)], counting) == {
        "correct": False,
        "reason": "expected cat<2, found 2",
    }


def test_scores_are_compared_in_float32_as_the_official_scorer_does():
    """Its arrays are float32, and so is the threshold beside them: the float32 nearest to 0.3 is not above it."""
    record = {"tag": "single_object", "include": [{"class": "cat", "count": 1}]}
    assert float(np.float32(0.3)) > 0.3
    assert not score_image([one(score=float(np.float32(0.3)))], record)["correct"]
    assert not is_confident(float(np.float32(0.3)), 0.3)
    assert is_confident(float(np.nextafter(np.float32(0.3), np.float32(1))), 0.3)


def test_at_most_16_objects_of_a_class_count():
    record = {
        "tag": "single_object",
        "include": [{"class": "cat", "count": 1}],
        "exclude": [{"class": "cat", "count": 17}],
    }
    assert score_image([one() for _ in range(40)], record)["correct"]


def test_a_classifier_is_asked_only_for_the_objects_that_count():
    asked = []

    def classify(objects, name):
        asked.append((len(objects), name))
        return ["blue"] * len(objects)

    record = {"tag": "colors", "include": [{"class": "cat", "count": 1, "color": "blue"}]}
    found = [Detected("cat", None, s, (0, 0, 1, 1)) for s in (0.5, 0.9)] + [one("dog")]
    assert score_image(found, record, colors=classify)["correct"]
    assert asked == [(1, "cat")]
    with pytest.raises(UsageError, match="colours"):
        score_image(found, record)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"tag": None}, "no 'tag'"),
        ({"include": []}, "no 'include'"),
        ({"include": "cat"}, "no 'include'"),
        ({"include": ["cat"]}, "include\\[0\\]: not an object"),
        ({"include": [{"class": "cat"}]}, "'count' must be"),
        ({"include": [{"class": "cat", "count": True}]}, "'count' must be"),
        ({"include": [{"class": "cat", "count": 0}]}, "'count' must be"),
        ({"include": [{"class": "cat", "count": 1, "color": "mauve"}]}, "mauve"),
        ({"include": [{"class": "cat", "count": 1, "position": ["left of", 0]}]}, "no clause before"),
        ({"include": [{"class": "cat", "count": 1, "position": ["near", 0]}]}, "not \\[relation, target\\]"),
        (
            {"include": [{"class": "cat", "count": 1, "position": [["left of"], 0]}]},
            "not \\[relation, target\\]",
        ),
        ({"exclude": {"class": "cat"}}, "not a list"),
        ({"exclude": [{"count": 3}]}, "exclude\\[0\\]"),
    ],
)
def test_bad_records_are_refused_with_their_prompt(change, fault):
    record = {"tag": "colors", "include": [{"class": "cat", "count": 1}], "prompt": "a cat"}
    with pytest.raises(InputError, match=fault) as error:
        score_image([], {**record, **change})
    assert "a cat" in str(error.value)


def test_pictures_of_the_built_in_world_are_right_for_their_prompts_and_wrong_for_others():
    rng = np.random.default_rng(0)
    prompts = load_eval_prompts()[::12]
    pictures = [detect_shapes(render(scene_for(record, rng), 64)) for record in prompts]
    assert all(score_image(d, r)["correct"] for d, r in zip(pictures, prompts, strict=True))
    crossed = [score_image(d, r)["correct"] for d, r in zip(pictures[1:], prompts, strict=False)]
    assert np.mean(crossed) < 0.2


def test_detectors_are_named():
    detector = open_detector("shapes")
    assert detector.label.startswith("shapes-")
    assert "star" in detector.classes
    with pytest.raises(UsageError, match="there are: shapes"):
        open_detector("mask2former-9000")


def test_the_built_in_world_has_genevals_words():
    counts: dict[str, int] = defaultdict(int)
    for record in load_eval_prompts():
        counts[record["tag"]] += 1
    assert tuple(counts) == TASKS == vocabulary.TASKS
    assert tuple(vocabulary.COLORS) == COLORS
    assert vocabulary.RELATIONS == RELATIONS
