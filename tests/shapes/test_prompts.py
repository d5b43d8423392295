"""Prompts: GenEval's form, the splits, and scenes that keep what their prompt promises."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from sanactl.shapes.prompts import (
    SPLITS,
    all_prompts,
    load_calib_prompts,
    load_eval_prompts,
    record_of,
    sample_prompt,
    scene_for,
    words,
)
from sanactl.shapes.scene import GAP, Item, Scene
from sanactl.shapes.vocabulary import COLORS, RELATIONS, SHAPES, TASKS
from sanactl.world.make_assets import ASSETS, write


def relations_between(a: tuple[float, ...], b: tuple[float, ...]) -> set[str]:
    """GenEval's `relative_position`, written anew from the paper's rule on two boxes x0, y0, x1, y1."""
    box_a, box_b = np.reshape(a, (2, 2)), np.reshape(b, (2, 2))
    offset = box_a.mean(axis=0) - box_b.mean(axis=0)
    sizes = (box_a[1] - box_a[0]) + (box_b[1] - box_b[0])
    revised = np.maximum(np.abs(offset) - 0.1 * sizes, 0) * np.sign(offset)
    dx, dy = revised / np.linalg.norm(offset)
    found = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, holds in found.items() if holds}


def satisfies(record: dict[str, Any], scene: Scene) -> bool:
    """GenEval's requirements on a scene whose objects are all certain, and that it shows nothing more."""
    groups: list[list[Item]] = []
    for entry in record["include"]:
        group = [
            i for i in scene.items if i.shape == entry["class"] and i.color == entry.get("color", i.color)
        ]
        if len(group) < entry["count"]:
            return False
        if "position" in entry:
            relation, target = entry["position"]
            if any(relation not in relations_between(a.box, b.box) for a in group for b in groups[target]):
                return False
        groups.append(group)
    for entry in record.get("exclude", []):
        if sum(i.shape == entry["class"] for i in scene.items) >= entry["count"]:
            return False
    return len(scene.items) == sum(entry["count"] for entry in record["include"])


@pytest.mark.parametrize("tag", TASKS)
@pytest.mark.parametrize("split", SPLITS)
def test_scenes_satisfy_their_prompt(tag: str, split: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        record = sample_prompt(rng, tag, split)
        assert record["tag"] == tag
        scene = scene_for(record, rng)
        assert satisfies(record, scene), record
        for n, a in enumerate(scene.items):
            assert all(0 < v < 1 for v in a.box)
            for b in scene.items[:n]:
                assert np.hypot(a.x - b.x, a.y - b.y) >= a.reach + b.reach + GAP - 1e-9


def test_the_check_itself_can_fail() -> None:
    rng = np.random.default_rng(0)
    left = record_of("position", ("star", "left of", "heart"), "a photo of")
    right = record_of("position", ("star", "right of", "heart"), "a photo of")
    three = record_of("counting", ("3", "star"), "a photo of")
    two = record_of("counting", ("2", "star"), "a photo of")
    assert not satisfies(right, scene_for(left, rng))
    assert not satisfies(two, scene_for(three, rng))
    assert not satisfies(three, scene_for(two, rng))


def test_records_read_as_geneval_writes_them() -> None:
    assert record_of("position", ("circle", "left of", "star"), "a photo of") == {
        "tag": "position",
        "include": [
            {"class": "star", "count": 1},
            {"class": "circle", "count": 1, "position": ["left of", 0]},
        ],
        "prompt": "a photo of a circle left of a star",
    }
    assert record_of("counting", ("3", "cross"), "an image of") == {
        "tag": "counting",
        "include": [{"class": "cross", "count": 3}],
        "exclude": [{"class": "cross", "count": 4}],
        "prompt": "an image of three crosses",
    }
    pair = record_of("color_attr", ("orange", "heart", "blue", "cross"), "drawing of")
    assert pair["prompt"] == "drawing of an orange heart and a blue cross"
    assert pair["include"] == [
        {"class": "heart", "count": 1, "color": "orange"},
        {"class": "cross", "count": 1, "color": "blue"},
    ]


def test_articles_and_words_of_every_prompt() -> None:
    vocabulary = set(words())
    seen: set[str] = set()
    for split in SPLITS:
        for record in all_prompts(split):
            text = record["prompt"].split()
            seen.update(text)
            for word, following in pairwise(text):
                if word in ("a", "an"):
                    assert (word == "an") == (following[0] in "aeiou"), record["prompt"]
    assert seen == vocabulary


def test_splits_are_disjoint_and_hold_out_contents() -> None:
    prompts = {split: [r["prompt"] for r in all_prompts(split)] for split in SPLITS}
    together = [p for texts in prompts.values() for p in texts]
    assert len(together) == len(set(together))

    inverse = dict(zip(RELATIONS, ("right of", "left of", "below", "above"), strict=True))

    def demands(record: dict[str, Any]) -> set[tuple[str, ...]]:
        """Both ways to say what a picture of two objects must show."""
        first, second = record["include"]
        if record["tag"] == "position":
            relation = second["position"][0]
            return {
                (second["class"], relation, first["class"]),
                (first["class"], inverse[relation], second["class"]),
            }
        names = [f"{e.get('color', '')} {e['class']}" for e in (first, second)]
        return {tuple(names), tuple(names[::-1])}

    for tag in ("two_object", "position", "color_attr"):
        held = {d for r in all_prompts("eval", tag) for d in demands(r)}
        trained = {d for r in all_prompts("train", tag) for d in demands(r)}
        assert held and trained and not held & trained


def test_assets_are_what_the_module_makes(tmp_path: Any) -> None:
    write(tmp_path)
    for name in ("eval.jsonl", "calib.txt"):
        assert (tmp_path / name).read_bytes() == (ASSETS / name).read_bytes()


def test_assets_are_held_out_and_balanced() -> None:
    records, calib = load_eval_prompts(), load_calib_prompts()
    assert Counter(r["tag"] for r in records) == dict.fromkeys(TASKS, 60)
    assert len({r["id"] for r in records}) == len({r["prompt"] for r in records}) == 360
    assert len(calib) == len(set(calib)) == 100
    assert not {r["prompt"] for r in records} & set(calib)
    train = {r["prompt"] for r in all_prompts("train")}
    assert not train & {r["prompt"] for r in records}
    assert not train & set(calib)
    for record in records:
        json.dumps(record)
        assert {e["class"] for e in record["include"]} <= set(SHAPES)
        assert {e["color"] for e in record["include"] if "color" in e} <= set(COLORS)


def test_unknown_names_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="unknown task"):
        sample_prompt(rng, "counts")
    with pytest.raises(ValueError, match="unknown split"):
        sample_prompt(rng, split="test")
