"""New prompts: GenEval's grammar in correct words, by weight, and none that means an excluded one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sanactl.errors import UsageError
from sanactl.prompts.draw import parse_weights
from sanactl.prompts.exclusion import Excluded
from sanactl.prompts.geneval.benchmark import geneval_prompts
from sanactl.prompts.geneval.grammar import geneval_spaces
from sanactl.prompts.geneval.train import PAPER_COUNT, train_prompts
from sanactl.prompts.geneval.vocabulary import INVERSE, OBJECTS, TASKS, plural, several, single
from sanactl.prompts.meaning import meaning
from sanactl.scoring.geneval.rules import check_record
from sanactl.shapes.prompts import all_prompts, load_eval_prompts
from tests.program import Program

BENCHMARK = geneval_prompts()
NOT_BY_S = {
    "person": "people", "bus": "buses", "bench": "benches", "sheep": "sheep", "skis": "skis", "knife": "knives",
    "wine glass": "wine glasses", "sandwich": "sandwiches", "broccoli": "broccoli", "couch": "couches",
    "computer mouse": "computer mice", "scissors": "scissors", "toothbrush": "toothbrushes",
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def demand(record: dict[str, Any]) -> tuple[Any, ...]:
    """What a record asks for, without `sanactl.prompts.meaning`: things in any order, relations to the left or above."""
    include = record["include"]
    things = sorted((c["class"], c["count"], c.get("color", "")) for c in include)
    relations = []
    for clause in include:
        if "position" in clause:
            relation, target = clause["position"]
            pair = (clause["class"], include[target]["class"])
            flip = relation in ("right of", "below")
            relations.append((INVERSE[relation] if flip else relation, *pair[:: -1 if flip else 1]))
    return (*things, *relations)


def drawn(
    count: int, seed: int = 0, weights: dict[str, float] | None = None, tell: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    return train_prompts(count, seed=seed, excluded=Excluded(BENCHMARK), weights=weights, tell=tell)


def test_words_are_correct_for_every_class() -> None:
    assert {name: plural(name) for name in OBJECTS if plural(name) != f"{name}s"} == NOT_BY_S
    assert {name for name in OBJECTS if single(name).startswith("an ")} == {
        "airplane", "elephant", "umbrella", "apple", "orange", "oven",
    }  # fmt: skip
    assert (
        several(2, "skis") == "two pairs of skis"
        and single("scissors", "orange") == "a pair of orange scissors"
    )
    assert several(3, "broccoli") == "three heads of broccoli" and single("oven", "red") == "a red oven"


def test_every_number_is_a_meaning_of_its_own() -> None:
    for space in geneval_spaces():
        step = 1 if space.size < 4000 else 97
        pairs = [(space.make(n, False), space.make(n, True)) for n in range(0, space.size, step)]
        assert len({demand(r) for r, _ in pairs}) == len(pairs)
        for record, turned in pairs:
            check_record(record)
            check_record(turned)
            assert record["tag"] == turned["tag"] == space.tag
            assert demand(record) == demand(turned)
            assert meaning(record) == meaning(record["prompt"]) == meaning(turned["prompt"])
        space.make(space.size - 1, True)
        if space.tag != "color_attr":
            with pytest.raises(IndexError):
                space.make(space.size, True)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**53 - 1), st.integers(1, 1500))
def test_no_training_prompt_means_what_a_benchmark_prompt_means(seed: int, count: int) -> None:
    records = drawn(count, seed)
    assert len(records) == count
    demands = {demand(r) for r in records}
    assert len(demands) == len({r["id"] for r in records}) == len({r["prompt"] for r in records}) == count
    assert not demands & {demand(r) for r in BENCHMARK}


def test_the_papers_size_is_possible_and_the_same_again() -> None:
    told: list[str] = []
    records = drawn(PAPER_COUNT, 3, tell=told.append)
    # What the grammar has, less what the benchmark has of it.
    there = {"two_object": 3160 - 99, "counting": 240 - 80, "colors": 790 - 94}
    sizes = Counter(r["tag"] for r in records)
    assert {tag: sizes[tag] for tag in there} == there
    assert sorted(line.split()[0] for line in told) == sorted(there)
    assert abs(sizes["position"] - sizes["color_attr"]) <= 1 and sizes["single_object"] == 0
    assert not {demand(r) for r in records} & {demand(r) for r in BENCHMARK}
    assert drawn(300, 3) == drawn(300, 3) != drawn(300, 4)
    # Both orders of words occur.
    assert {r["include"][1]["position"][0] for r in records if r["tag"] == "position"} == {*INVERSE}


def test_weights_give_shares() -> None:
    records = drawn(100, weights={"position": 7, "counting": 2, "colors": 1})
    assert Counter(r["tag"] for r in records) == {"position": 70, "counting": 20, "colors": 10}
    assert [r["tag"] for r in records] != sorted((r["tag"] for r in records), key=TASKS.index)
    more = drawn(300, weights={"position": 1, "counting": 1})
    assert {r["id"] for r in records if r["tag"] == "counting"} < {r["id"] for r in more}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("two:1", "none of single_object"), ("", "none of"), ("counting", "not TASK:WEIGHT"), ("counting:-1", "not TASK"),
        ("counting:nan", "not TASK"), ("counting:inf", "not TASK"), ("counting:1,counting:1", "twice"),
        ("counting:0", "no weight is above 0"), ("counting:1e308,colors:1e308", "too large"),
    ],
)  # fmt: skip
def test_weights_of_another_form(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_weights(text, TASKS)


def test_a_task_that_is_used_up_is_told(sanactl: Program) -> None:
    train = ("prompts", "geneval", "--split", "train")
    records = sanactl(*train, "-n", "400", "--weights", "counting:1,single_object:5,two_object:1e-9")
    assert Counter(r["tag"] for r in records) == {"counting": 160, "two_object": 240}
    assert "all prompts of single_object are excluded; other tasks give the rest" in sanactl.said
    assert "counting has only 160 that are not excluded" in sanactl.said
    line = sanactl.fails(*train, "-n", "161", "--weights", "counting:1,single_object:1", code=2)
    assert "161 prompts are wanted, but single_object and counting have 160 not excluded" in line
    line = sanactl.fails(*train, "-n", "5", "--weights", "single_object:1", code=2)
    assert "5 prompts are wanted, but all prompts of single_object are excluded" in line
    line = sanactl.fails(*train, "-n", "999999", "--weights", "two_object:1,color_attr:1", code=2)
    assert "two_object and color_attr have 280,450 in all" in line
    assert len(sanactl(*train, "-n", "80", "--weights", "single_object:1", "--exclude", "none")) == 80
    assert "the benchmark's prompts are not left out" in sanactl.said


def test_files_are_excluded_by_meaning(sanactl: Program) -> None:
    given = ["a photo of two knifes", "three knives", "FOUR  knifes.", "a tree", "two pairs of scissors"]
    Path("x.txt").write_text("\n".join(given), encoding="utf-8")
    first = sanactl(
        "prompts", "geneval", "--split", "train", "-n", "50", "--weights", "position:1", "--seed", "8"
    )
    Path("first.jsonl").write_text("".join(json.dumps(r) + "\n" for r in first), encoding="utf-8")
    train = ("prompts", "geneval", "--split", "train", "-n")
    files = ("--exclude", "x.txt", "--exclude", "first.jsonl")
    left_out = {demand(r) for r in [*BENCHMARK, *first] if r["tag"] == "counting"}
    left_out |= {(("knife", n, ""),) for n in (2, 3, 4)} | {(("scissors", 2, ""),)}
    counting = sanactl(*train, str(240 - len(left_out)), "--weights", "counting:1", *files)
    assert not left_out & {demand(r) for r in counting}
    assert "x.txt: 1 of 5 prompts are not of GenEval's grammar" in sanactl.said
    second = sanactl(*train, "50", "--weights", "position:1", "--seed", "8", *files)
    assert not {demand(r) for r in first} & {demand(r) for r in second}
    assert [*second] == sanactl(
        *train,
        "50",
        "--weights",
        "position:1",
        "--seed",
        "8",
        "--exclude",
        "-",
        stdin=Path("first.jsonl").read_text(),
    )
    assert "no such prompt file" in sanactl.fails(*train, "5", "--exclude", "gone.txt")


def test_none_leaves_nothing_out_but_the_files_beside_it(sanactl: Program) -> None:
    shapes = ("prompts", "shapes", "--split", "train", "-n", "40", "--weights", "position:1")
    drawn = sanactl(*shapes)
    assert sanactl(*shapes, "--exclude", "none") == drawn
    assert sanactl("prompts", "shapes", "--exclude", "none") == sanactl("prompts", "shapes")
    Path("held.jsonl").write_text("".join(json.dumps(r) + "\n" for r in drawn[:8]))
    held = {meaning(r) for r in drawn[:8]}
    assert not held & {meaning(r) for r in sanactl(*shapes, "--exclude", "none", "--exclude", "held.jsonl")}

    geneval = ("prompts", "geneval", "--split", "train", "-n", "79", "--weights", "single_object:1")
    Path("apple.txt").write_text("a photo of an apple\n")
    found = sanactl(*geneval, "--exclude", "none", "--exclude", "apple.txt")
    assert "a photo of an apple" not in {r["prompt"] for r in found}
    assert "the benchmark's prompts are not left out" in sanactl.said


def test_official_prompts_take_no_options(sanactl: Program) -> None:
    for option in (("-n", "5"), ("--seed", "0"), ("--weights", "colors:1"), ("--exclude", "none")):
        line = sanactl.fails("prompts", "geneval", *option, code=2)
        assert f"{option[0]} is for --split train" in line
    assert "choose one of" in sanactl.fails("prompts", "geneval", "--split", "eval", code=2)


def test_the_built_in_world_has_the_same_options(sanactl: Program) -> None:
    shapes = ("prompts", "shapes", "--split", "train", "-n")
    records = sanactl(*shapes, "90", "--weights", "position:2,counting:1")
    assert Counter(r["tag"] for r in records) == {"position": 60, "counting": 30}
    assert len({r["id"] for r in records}) == len({r["prompt"] for r in records}) == 90
    train = {r["prompt"] for r in all_prompts("train")}
    assert {r["prompt"] for r in records} <= train
    Path("first.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    again = sanactl(*shapes, "90", "--weights", "position:2,counting:1", "--exclude", "first.jsonl")
    position = [{demand(r) for r in given if r["tag"] == "position"} for given in (records, again)]
    assert not position[0] & position[1]
    assert not {r["prompt"] for r in records} & {r["prompt"] for r in again}
    assert {r["id"] for r in load_eval_prompts()} == {r["id"] for r in sanactl("prompts", "shapes")}
    assert "single_object has" in sanactl.fails(*shapes, "500", "--tag", "single_object", code=2)
    assert "exclude each other" in sanactl.fails(
        *shapes, "5", "--tag", "counting", "--weights", "counting:1", code=2
    )
