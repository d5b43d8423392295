"""GenEval's own prompts with random detections: verdicts and scores are those of the official program's rules."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from sanactl.prompts.geneval.benchmark import geneval_prompts
from sanactl.prompts.geneval.vocabulary import COLORS, OBJECTS
from sanactl.scoring.detectors.protocol import Detected
from sanactl.scoring.geneval.coverage import WHOLE_GENEVAL, PromptCoverage
from sanactl.scoring.geneval.rules import TASKS, score_image
from sanactl.scoring.geneval.scores import geneval_record
from sanactl.shapes.prompts import load_eval_prompts
from tests.scoring.official_rules import published_summary, published_verdict

IMAGES = 4  # of each of the 553 prompts
# Scores at both confidences, as they are read and as float32 has them, and next to them.
NEAR = [np.nextafter(np.float32(c), np.float32(side)) for c in (0.3, 0.9) for side in (0, 1)]
SCORES = np.array([0.3, 0.9, 0.30000001, 0.8999999, *NEAR, *map(np.float32, (0.3, 0.9, 0.5, 0.95))])


def detections(record: dict[str, Any], rng: np.random.Generator) -> list[Detected]:
    """What a detector might find in an image of a prompt: often right, sometimes a crowd, many ties."""
    found: list[Detected] = []
    clauses = [*record["include"], *record.get("exclude", ())]
    for clause in clauses:
        count = clause["count"] if rng.random() < 0.6 else int(rng.integers(0, 3))
        crowd = rng.random() < 0.1
        if crowd:
            count = int(rng.integers(15, 22))
        for _ in range(count):
            color = clause.get("color") if rng.random() < 0.8 else None
            found.append(one(clause["class"], color or COLORS[int(rng.integers(10))], rng, sure=crowd))
    found += [one(OBJECTS[int(rng.integers(80))], "red", rng) for _ in range(int(rng.integers(0, 3)))]
    return [found[i] for i in rng.permutation(len(found))]


def one(name: str, color: str, rng: np.random.Generator, sure: bool = False) -> Detected:
    score = rng.choice(SCORES) if rng.random() < 0.5 else rng.choice([0.92, 0.97, rng.random()])
    score = 0.97 if sure else score
    # A coarse grid, so that centres coincide and relations are at their limits.
    corner, side = rng.integers(0, 9, 2) * 32.0, rng.integers(0, 5, 2) * 24.0 + rng.choice([0, 0.1])
    x0, y0, x1, y1 = map(float, (*corner, *(corner + side)))
    return Detected(name, color, float(np.float32(score)), (x0, y0, x1, y1))


@pytest.fixture(scope="module")
def scored() -> list[dict[str, Any]]:
    """2,212 records with the verdicts of both."""
    rng = np.random.default_rng(12)
    records = []
    for number, prompt in enumerate(geneval_prompts()):
        for _ in range(IMAGES):
            found = detections(prompt, rng)
            ours, theirs = score_image(found, prompt), published_verdict(found, prompt)
            records.append({**prompt, "prompt_id": str(number), **ours, "theirs": theirs, "samples": IMAGES})
    return records


def test_every_verdict_is_the_official_one(scored: list[dict[str, Any]]) -> None:
    for record in scored:
        assert (record["correct"], record["reason"]) == record["theirs"], record
    # The random detections reach each rule from both sides.
    for task in TASKS:
        assert {r["correct"] for r in scored if r["tag"] == task} == {True, False}
    reasons = " ".join(r["reason"] for r in scored)
    for part in (
        ">=4, found",
        "<4, found 16",
        "left of target, found  target",
        "above target, found left of",
        "; and ",
    ):
        assert part in reasons, part


@pytest.mark.parametrize("share", [1.0, 0.2])
def test_scores_are_those_of_the_official_summary(scored: list[dict[str, Any]], share: float) -> None:
    rng = np.random.default_rng(3)
    kept = set(rng.permutation(553)[: round(553 * share)].tolist())
    mine = [r for r in scored if int(r["prompt_id"]) in kept]
    score = geneval_record(mine)
    theirs = published_summary([{**r, "metadata": r["prompt_id"]} for r in mine])
    assert score["value"] == pytest.approx(theirs["overall"], abs=1e-6)
    assert {t: v["value"] for t, v in score["tasks"].items()} == pytest.approx(theirs["tasks"], abs=1e-6)
    assert {t: v["images"] for t, v in score["tasks"].items()} == Counter(r["tag"] for r in mine)
    assert score["correct_prompts"] == pytest.approx(theirs["correct prompts"], abs=1e-6)
    assert (score["images"], score["prompts"]) == (theirs["images"], theirs["prompts"])


def said(records: list[dict[str, Any]]) -> str:
    coverage = PromptCoverage()
    for record in [*records, *records]:
        coverage.add(record)
    return coverage.said()


def test_a_part_of_the_benchmark_is_not_the_benchmark() -> None:
    official, world = geneval_prompts(), load_eval_prompts()
    assert said(official) == WHOLE_GENEVAL
    assert said(official[:120]) == "120 of GenEval's 553 prompts"
    assert said(world) == "the built-in world's 360 prompts"
    assert said([*official, world[0]]) == "GenEval's 553 prompts and 1 of the built-in world's 360 prompts"
    changed = [
        {**official[0], "prompt": "a bench"},
        {**official[1], "include": [{"class": "cat", "count": 1}]},
    ]
    assert said(changed) == "2 other prompts"
