"""What a judge learns from: faulty pictures, prompts that nearly fit, and the facts behind an answer."""

from __future__ import annotations

import numpy as np
import pytest

from sanactl.errors import InputError
from sanactl.scoring.detectors.shapes import detect_shapes
from sanactl.scoring.geneval.rules import score_image
from sanactl.shapes.prompts import contents, load_eval_prompts, record_of, sample_prompt, split_of
from sanactl.shapes.render import render
from sanactl.shapes.scene import Item, Scene
from sanactl.shapes.vocabulary import PHRASES, TASKS
from sanactl.world.judge_data import flawed_example
from sanactl.world.judge_pool import flawed_pool
from sanactl.world.judge_prompts import content_of, near_miss, phrase_of, require_train_split, seen_content
from sanactl.world.judge_questions import FACTS, UNKNOWN, ask, facts_at_words


@pytest.fixture(scope="module")
def pool():
    return flawed_pool(60, seed=5)


def test_a_faulty_picture_is_a_function_of_its_index():
    a, record = flawed_example(3, seed=1)
    b, again = flawed_example(3, seed=1)
    assert (a == b).all()
    assert record == again
    assert a.shape == (64, 64, 3)
    assert (a != flawed_example(4, seed=1)[0]).any()


def test_faulty_pictures_are_right_about_half_of_the_time(pool):
    right = [score_image(pool.view(i, False).detected(), r)["correct"] for i, r in enumerate(pool.records)]
    assert 0.3 < np.mean(right) < 0.7


@pytest.mark.parametrize("tag", TASKS)
def test_content_and_phrase_are_read_back(tag):
    rng = np.random.default_rng(0)
    for _ in range(20):
        choices = contents(tag)
        content, phrase = choices[rng.integers(len(choices))], PHRASES[rng.integers(len(PHRASES))]
        record = record_of(tag, content, phrase)
        assert content_of(record) == content
        assert phrase_of(record) == phrase


@pytest.mark.parametrize("tag", TASKS)
def test_a_near_miss_is_another_prompt_of_the_same_task(tag):
    rng = np.random.default_rng(1)
    made = 0
    for _ in range(50):
        content = content_of(sample_prompt(rng, tag))
        changed = near_miss(tag, content, [("star", "red"), ("heart", "blue")], rng)
        if changed is not None:
            made += 1
            assert changed[0] == tag
            assert changed[1] != content
            assert changed[1] in contents(tag)
            assert sum(a != b for a, b in zip(content, changed[1], strict=True)) <= 2
    assert made > 20


def test_what_is_seen_is_asked_about():
    rng = np.random.default_rng(2)
    drawn = [seen_content([("star", "red"), ("star", "blue"), ("heart", "pink")], rng) for _ in range(200)]
    kinds = {tag for tag, _ in filter(None, drawn)}
    assert kinds == set(TASKS)
    assert ("counting", ("2", "star")) in drawn
    assert seen_content([], rng) is None


def test_held_out_prompts_are_refused():
    for record in load_eval_prompts()[::40]:
        with pytest.raises(InputError, match="must not be trained on"):
            require_train_split(record)
    require_train_split(sample_prompt(np.random.default_rng(0)))
    with pytest.raises(InputError, match="none of the built-in world"):
        require_train_split(
            {"prompt": "a cat", "tag": "single_object", "include": [{"class": "cat", "count": 1}]}
        )
    record = sample_prompt(np.random.default_rng(0), "colors")
    with pytest.raises(InputError, match="does not say what its record asks for"):
        require_train_split({**record, "prompt": "a heart"})


def test_questions_are_labelled_by_the_rules_and_balanced(pool):
    rng = np.random.default_rng(3)
    answers = []
    for index in range(len(pool)):
        view = pool.view(index, False)
        asked = ask(view, 8, rng)
        found = detect_shapes(pool.images[index])
        assert len(asked) == 8
        assert asked[0].own
        assert asked[0].record == pool.records[index]
        assert not any(q.own for q in asked[1:])
        for q in asked:
            assert q.correct == score_image(found, q.record)["correct"]
            assert split_of(q.record["tag"], content_of(q.record), phrase_of(q.record)) == "train"
            assert len(q.facts) == len(q.words)
        answers += [q.correct for q in asked]
    assert 0.4 < np.mean(answers) < 0.6


def test_a_mirrored_view_is_the_mirrored_picture(pool):
    for index in range(10):
        view = pool.view(index, True)
        assert (view.image == pool.images[index][:, ::-1]).all()
        clear = [d for d in detect_shapes(np.ascontiguousarray(view.image)) if d.score > 0.9]
        for d in clear:
            near = min(view.detected(), key=lambda v: abs(v.box[0] - d.box[0]) + abs(v.box[1] - d.box[1]))
            assert (near.name, near.color) == (d.name, d.color)
            assert near.box == pytest.approx(d.box, abs=1.5)


def test_facts_at_the_nouns():
    items = (
        Item("star", "red", 0.25, 0.25, 0.12),
        Item("heart", "blue", 0.75, 0.25, 0.12),
        Item("heart", "pink", 0.75, 0.75, 0.12),
    )
    found = detect_shapes(render(Scene(items, (128, 128, 128))))
    words = ["a", "star", "left", "of", "a", "heart"]
    facts = facts_at_words(words, found)
    assert [w for w, f in zip(words, facts, strict=True) if f["found"] != UNKNOWN] == ["star", "heart"]
    star, heart = facts[1], facts[5]
    assert (star["found"], star["sure"], heart["found"], heart["sure"]) == (1, 1, 2, 2)
    assert star["cell"] == 2 * 8 + 2 or star["cell"] in (1 * 8 + 1, 1 * 8 + 2, 2 * 8 + 1)
    assert star["color"] == 1
    assert heart["color"] in (1 + 4, 1 + 6)
    assert star["relation"] == UNKNOWN
    assert 0 <= heart["relation"] < FACTS["relation"]
    (cross,) = [f for f in facts_at_words(["four", "crosses"], found) if f["found"] != UNKNOWN]
    assert (cross["found"], cross["cell"], cross["color"]) == (0, 64, 0)
