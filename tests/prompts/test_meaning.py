"""What prompts mean: equal meanings have one key, and evaluation prompts are known by their meaning."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanactl.errors import InputError
from sanactl.prompts.geneval.benchmark import geneval_prompts
from sanactl.prompts.geneval.vocabulary import (
    COLORS,
    INVERSE,
    NUMBERS,
    OBJECTS,
    RELATIONS,
    naive_plural,
    several,
    single,
    with_article,
)
from sanactl.prompts.meaning import evaluation_set, meaning, refuse_evaluation_prompts
from sanactl.shapes.prompts import all_prompts, load_eval_prompts

names = st.sampled_from(OBJECTS)
colors = st.sampled_from(COLORS)


@given(names, names, st.sampled_from(RELATIONS))
def test_a_relation_and_its_inverse_mean_the_same(one: str, other: str, relation: str) -> None:
    said = meaning(f"a photo of {with_article(one)} {relation} {with_article(other)}")
    assert said == meaning(f"{single(other)} {INVERSE[relation]} {single(one)}")
    assert said == meaning({"include": [{"class": other, "count": 1}, placed(one, relation)]})
    assert said == meaning({"include": [{"class": one, "count": 1}, placed(other, INVERSE[relation])]})
    assert said != meaning(f"{single(one)} and {single(other)}")
    if one != other:
        assert said != meaning(f"{single(other)} {relation} {single(one)}")


def placed(name: str, relation: str) -> dict[str, Any]:
    return {"class": name, "count": 1, "position": [relation, 0]}


@given(names, colors, names, colors)
def test_the_order_of_a_pair_makes_no_difference(a: str, c: str, b: str, d: str) -> None:
    said = meaning(f"a photo of {with_article(f'{c} {a}')} and {with_article(f'{d} {b}')}")
    assert said == meaning(f"{single(b, d)} and {single(a, c)}")
    assert (said == meaning(f"{single(a, d)} and {single(b, c)}")) == (a == b or c == d)
    assert meaning(f"{single(a)} and {single(b)}") == meaning(f"{with_article(b)} and {with_article(a)}")


@given(names, st.sampled_from([*NUMBERS]))
def test_plurals_of_both_kinds_are_read(name: str, count: int) -> None:
    said = meaning({"include": [{"class": name, "count": count}]})
    assert meaning(f"a photo of {NUMBERS[count]} {naive_plural(name)}") == said
    assert meaning(f"A  Photo of {several(count, name)}.") == said
    assert meaning(f"a photo of {count} {naive_plural(name)}") == said
    assert meaning(single(name)) == meaning({"include": [{"class": name, "count": 1}]}) != said


def test_the_words_of_the_benchmark_mean_their_clauses() -> None:
    records = [*geneval_prompts(), *load_eval_prompts()]
    assert len(records) == 553 + 360
    for record in records:
        assert meaning(record["prompt"]) == meaning(record), record
    assert len({meaning(r) for r in geneval_prompts()}) == 552


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("an orange", "an orange orange", False),
        ("a pair of red scissors", "a photo of a red scissors", True),
        ("a dog to the left of a cat", "a cat right of a dog", True),
        ("a computer mouse", "a photograph of a mouse", True),
        ("two dogs", "three dogs", False),
        ("a red dog", "a dog", False),
        ("the Eiffel  Tower at NIGHT", "a photo of the eiffel tower at night.", True),
        ("dogs", "a dog", False),
        ("a pair of dogs", "a dog", False),
        ("", "a dog", False),
    ],
)
def test_meanings_of_texts(one: str, other: str, same: bool) -> None:
    assert (meaning(one) == meaning(other)) is same


def test_an_exclude_clause_counts_where_it_says_more() -> None:
    dog = {"class": "dog", "count": 2}
    plain = meaning({"include": [dog]})
    assert meaning({"include": [dog], "exclude": [{"class": "dog", "count": 3}]}) == plain
    assert meaning({"include": [dog], "exclude": [{"class": "cat", "count": 1}]}) != plain


@pytest.mark.parametrize(
    "include",
    [
        [], "dog", [3], [{"class": 3, "count": 1}], [{"class": "dog", "count": "1"}], [{"class": "dog"}],
        [{"class": "dog", "count": 1, "position": ["left of", 0]}],
        [{"class": "dog", "count": 1, "position": "left"}], [{"class": "dog", "count": 1, "color": []}],
    ],
)  # fmt: skip
def test_clauses_of_another_form_leave_the_words(include: Any) -> None:
    assert meaning({"include": include, "prompt": "a photo of a dog"}) == meaning("a dog")


@given(st.text(max_size=60))
def test_any_text_has_a_meaning(text: str) -> None:
    assert meaning(text) == meaning(f" {text}\n")


@pytest.mark.parametrize(
    ("record", "owner"),
    [
        ({"prompt": "a photo of a bench"}, "GenEval"),
        ({"prompt": "Ein Foto", "prompt_original": "a photo of a bench"}, "GenEval"),
        ({"prompt": "一张照片", "include": [{"class": "bench", "count": 1}]}, "GenEval"),
        ({"prompt": "a photo of a purple bench and a purple bed"}, None),
        ({"prompt": "a red rose"}, None),
        ({}, None),
    ],
)
def test_evaluation_prompts_are_known_by_meaning(record: dict[str, Any], owner: str | None) -> None:
    found = evaluation_set(record)
    assert found is None if owner is None else found is not None and owner in found


def test_the_built_in_world_holds_out_what_its_split_does() -> None:
    assert all(evaluation_set(r) is not None for r in load_eval_prompts())
    train = [r for i, r in enumerate(all_prompts("train")) if i % 37 == 0]
    assert len(train) > 800 and not any(map(evaluation_set, train))
    held_out = next(r for r in load_eval_prompts() if r["tag"] == "position")
    subject = held_out["include"][1]
    turned = f"{single(held_out['include'][0]['class'])} {INVERSE[subject['position'][0]]} {single(subject['class'])}"
    assert evaluation_set(turned) == "the evaluation split of the built-in world"


def test_training_on_evaluation_prompts_is_refused() -> None:
    known = [r["prompt"] for r in geneval_prompts()[:3]]
    refuse_evaluation_prompts([{"prompt": "a photo of two red buses"}] * 3, "a judge")
    with pytest.raises(InputError, match=r"GenEval's 553 prompts \(and 2 more\); a judge must not"):
        refuse_evaluation_prompts([{"prompt": p} for p in ["a rose", *known, *known]], "a judge")
