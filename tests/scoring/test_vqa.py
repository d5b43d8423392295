"""`eval vqa`: Soft-TIFA of question lists, in a file or in the image records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sanactl.files.images import write_png
from sanactl.scoring.questions.protocol import Asked, spellings
from tests.program import Program
from tests.scoring.answerers import Coins
from tests.scoring.dpg_tables import draw

STARS = {
    "prompt": "two blue stars", "atom_count": 3, "skills": ["count", "attribute", "object"],
    "vqa_list": [["How many stars are in the image?", "two"], ["Are the stars blue?", "Yes"],
                 ["Are there any stars in the image?", "Yes"]],
}  # fmt: skip
HEART = {
    "prompt": "a heart", "id": "h", "atom_count": 1,
    "atoms": [{"question": "Are there any hearts in the image?", "answer": "Yes", "skill": "object"}],
}  # fmt: skip


def write_lines(path: str, records: list[dict[str, Any]]) -> None:
    Path(path).write_text("".join(json.dumps(r) + "\n" for r in records))


@pytest.fixture
def pictures(coins: Coins) -> list[dict[str, Any]]:
    """Two images of the stars, the second with one star, and one of the heart; records of them in images.jsonl."""
    blue = ("star", "blue", 0.25, 0.5), ("star", "blue", 0.75, 0.5)
    draw(Path("0.png"), *blue)
    draw(Path("1.png"), blue[0])
    draw(Path("2.png"), ("heart", "red", 0.5, 0.5))
    prompts = [STARS["prompt"], STARS["prompt"], HEART["prompt"]]
    records = [{"kind": "image", "path": f"{n}.png", "prompt": p} for n, p in enumerate(prompts)]
    write_lines(
        "images.jsonl", [{**r, "judge": "x"} for r in records]
    )  # prompts may have fewer images than others
    write_lines("questions.jsonl", [STARS, HEART])
    return records


def test_scores_are_those_counted_by_hand(
    coins: Coins, pictures: list[dict[str, Any]], sanactl: Program
) -> None:
    right = {"0": (0.9, 0.8, 0.5), "1": (0.1, 0.4, 0.2), "2": (0.25,)}
    left = {name: list(values) for name, values in right.items()}
    coins.answers = lambda image, one: (left[str(len(coins.done))].pop(0),)  # type: ignore[attr-defined]
    coins.done = []  # type: ignore[attr-defined]

    def answer(image: Any, asked: list[Asked]) -> list[tuple[float, ...]]:
        found = [coins.answers(image, one) for one in asked]
        coins.asked += [f"{one.text} {one.answers[0]}" for one in asked]
        coins.done.append(image)  # type: ignore[attr-defined]
        return found

    coins.answer = answer  # type: ignore[method-assign,assignment]
    *images, am, gm = sanactl(
        "eval", "vqa", "images.jsonl", "--questions", "questions.jsonl", "--vqa", "coins"
    )
    assert coins.asked[:2] == [
        "How many stars are in the image? Answer in one word. two", "Are the stars blue? Answer in one word. Yes",
    ]  # fmt: skip
    assert [r["vqa_answers"] for r in images] == [[*values] for values in right.values()]
    means = [2.2 / 3, 0.7 / 3, 0.25]
    geometric = [0.36 ** (1 / 3), 0.008 ** (1 / 3), 0.25]
    assert [r["vqa_score"] for r in images] == pytest.approx([100 * m for m in means], abs=1e-3)
    assert [r["vqa_gm"] for r in images] == pytest.approx([100 * m for m in geometric], abs=1e-3)
    for score, kind, parts, per_image in (
        (am, "am", {"count": 50, "attribute": 60, "object": (35 + 25) / 2}, means),
        (gm, "gm", {"1 atom": 25, "3 atoms": 50 * (geometric[0] + geometric[1])}, geometric),
    ):
        assert score["metric"] == f"soft_tifa_{kind}"
        assert score["value"] == pytest.approx(
            100 * ((per_image[0] + per_image[1]) / 2 + per_image[2]) / 2, abs=1e-3
        )
        assert {n: t["value"] for n, t in score["tasks"].items()} == pytest.approx(parts, abs=1e-3)
        assert (score["images"], score["prompts"], score["questions"]) == (3, 2, 7)
        assert (score["model"], score["model_digest"]) == ("coins", "sha256:coins")
    coins.asked.clear()
    assert sanactl(
        "eval", "vqa", "images.jsonl", "--questions", "questions.jsonl", "--vqa", "coins", "--force"
    )[-2:] == [am, gm]
    assert coins.asked == []


def test_records_have_their_questions_in_the_built_in_world(
    coins: Coins, pictures: list[dict[str, Any]], sanactl: Program
) -> None:
    write_lines(
        "own.jsonl", [{**(STARS if n < 2 else HEART), **r, "judge": "x"} for n, r in enumerate(pictures)]
    )
    *images, am, gm = sanactl("eval", "vqa", "own.jsonl", "--vqa", "shapes")
    assert [r["vqa_answers"] for r in images] == [[1, 1, 1], [0, 1, 1], [1]]
    assert am["value"] == pytest.approx(100 * (5 / 6 + 1) / 2, abs=1e-3)
    assert gm["value"] == 75
    assert gm["model"] == "oracle:shapes-1"


def test_intervals_are_over_prompts(coins: Coins, sanactl: Program) -> None:
    rng, lines = np.random.default_rng(0), []
    for number in range(12):
        write_png(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8), Path(f"{number}.png"))
        lines.append({"kind": "image", "path": f"{number}.png", **STARS, "prompt": f"{number // 2}"})
    write_lines("images.jsonl", lines)
    *_, am, gm = sanactl("eval", "vqa", "images.jsonl", "--vqa", "coins")
    for score in (am, gm):
        assert 0 <= score["ci"][0] < score["value"] < score["ci"][1] <= 100
    assert am["tasks"]["count"]["images"] == 12


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vqa_list": None}, "questions.jsonl, record 1: no vqa_list and no atoms"),
        (
            {"vqa_list": []},
            "record 1: vqa_list is no list of [question, answer], or skills has another length",
        ),
        ({"vqa_list": [], "skills": None}, "record 1: 0 questions; a prompt has 1 to 1,000"),
        ({"vqa_list": [["Is it?"]] * 3}, "record 1: vqa_list is no list of [question, answer]"),
        ({"vqa_list": [["Is it?", 1]] * 3}, "record 1: vqa_list is no list of [question, answer]"),
        ({"vqa_list": 7}, "record 1: vqa_list is no list of [question, answer]"),
        (
            {"skills": ["count"]},
            "record 1: vqa_list is no list of [question, answer], or skills has another length",
        ),
        ({"vqa_list": None, "atoms": {"question": "x"}}, "record 1: atoms is no list of objects"),
        ({"atom_count": "three"}, "record 1: atom_count is 'three', not a whole number"),
        ({"prompt": HEART["prompt"], "skills": None}, "'two blue stars'"),
        (
            {"prompt": "another"},
            "0.png: no questions for its prompt 'two blue stars'; --allow-missing passes",
        ),
    ],
)
def test_bad_questions_are_one_line(
    pictures: list[dict[str, Any]], sanactl: Program, change: dict[str, Any], said: str
) -> None:
    write_lines("questions.jsonl", [{**STARS, **change}, HEART])
    command = ("eval", "vqa", "images.jsonl", "--questions", "questions.jsonl", "--vqa", "shapes")
    assert said in sanactl.fails(*command)


def test_what_is_missing_is_one_line(pictures: list[dict[str, Any]], sanactl: Program) -> None:
    assert "0.png: its record has no vqa_list and no atoms; name their file" in sanactl.fails(
        "eval", "vqa", "images.jsonl", "--vqa", "shapes"
    )
    write_lines("questions.jsonl", [STARS, HEART, {**STARS, "prompt": "three stars"}])
    command = ("eval", "vqa", "images.jsonl", "--questions", "questions.jsonl", "--vqa", "shapes")
    sanactl(*command, code=1)
    assert "1 of the questions' prompts have no image, the first 'three stars'" in sanactl.said
    assert sanactl(*command, "--allow-missing")[-1]["prompts"] == 2
    assert "other questions" in _twice(sanactl)


def _twice(sanactl: Program) -> str:
    write_lines("questions.jsonl", [STARS, {**HEART, "id": None, "prompt": STARS["prompt"]}])
    return sanactl.fails(
        "eval", "vqa", "images.jsonl", "--questions", "questions.jsonl", "--vqa", "shapes", "-o", "x.jsonl"
    )


def test_an_answer_has_its_spellings() -> None:
    assert spellings("Four") == ("four", "4")
    assert spellings("10") == ("10", "ten")
    assert spellings(" Dark  Red ") == ("dark red",)
