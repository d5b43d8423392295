"""The question and its answer: what was done, by the lineages; how it ended, by scores and their intervals."""

from __future__ import annotations

from typing import Any

import pytest

from sanactl.report.headline import Headline, find_headline
from sanactl.report.run import read_run


def entry(command: str, parent: str, blocks: int, **arguments: Any) -> dict[str, Any]:
    parents = [{"name": parent, "digest": f"sha256:{parent}"}]
    return {"command": command, "arguments": arguments, "parents": parents, "blocks": blocks}


GROW = entry("grow", "base.st", 30, to=30)
PRUNE = entry("prune", "grown.st", 10, keep=10)
TRAIN = entry("finetune", "pruned.st", 10, steps=100)


def checkpoint(name: str, *lineage: dict[str, Any]) -> dict[str, Any]:
    blocks = lineage[-1]["blocks"] if lineage else 10
    return {
        "kind": "checkpoint",
        "path": name,
        "digest": f"sha256:{name}",
        "lineage": [*lineage],
        "blocks": blocks,
    }


def score(name: str, value: float, ci: tuple[float, float] | None = None, **more: Any) -> dict[str, Any]:
    tasks = {"colors": {"value": value, "ci": None, "images": 8}}
    known = {
        "checkpoint": name,
        "digest": f"sha256:{name}",
        "prompts": 40,
        "selection": "single",
        "tasks": tasks,
    }
    return {"kind": "score", "metric": "geneval", "value": value, "ci": ci, **known, **more}


CHECKPOINTS = [
    checkpoint("base.st"),
    checkpoint("grown.st", GROW),
    checkpoint("pruned.st", GROW, PRUNE),
    checkpoint("tuned.st", GROW, PRUNE, TRAIN),
]


def found(*scores: dict[str, Any]) -> Headline:
    return find_headline(read_run([*CHECKPOINTS, *scores], None))


@pytest.mark.parametrize(
    ("value", "low", "high", "answer", "tone"),
    [
        (0.71, 0.6, 0.8, "Yes: 0.71 after 100 steps of training against 0.67 for base.st; the intervals overlap.", "good"),
        (0.60, 0.5, 0.7, "Not decided: 0.60 after 100 steps of training against 0.67 for base.st; the intervals overlap.", ""),
        (0.20, 0.1, 0.3, "No: 0.20 after 100 steps of training against 0.67 for base.st; the intervals do not overlap.", "bad"),
    ],
)  # fmt: skip
def test_pruning_is_to_keep_the_score(value: float, low: float, high: float, answer: str, tone: str) -> None:
    said = found(
        score("base.st", 0.67, (0.55, 0.75)), score("pruned.st", 0.4), score("tuned.st", value, (low, high))
    )
    assert said.question == "Does pruning to 10 blocks keep the score by GenEval's rules?"
    assert (said.answer, said.tone) == (answer, tone)
    assert said.chain == ["base.st", "pruned.st", "tuned.st"]
    assert said.more == ["On the way: 0.40 for pruned.st."]


@pytest.mark.parametrize(
    ("value", "interval", "verdict"),
    [(0.9, (0.8, 0.95), "Yes"), (0.7, (0.6, 0.8), "Not shown"), (0.6, (0.5, 0.7), "No"), (0.7, None, "Yes")],
)
def test_growing_is_to_raise_it(value: float, interval: tuple[float, float] | None, verdict: str) -> None:
    said = found(score("base.st", 0.67, (0.55, 0.75)), score("grown.st", value, interval))
    assert said.question == "Does growing to 30 blocks raise the score by GenEval's rules?"
    assert said.answer.startswith(f"{verdict}: {value:.2f} against 0.67 for base.st")
    assert ("interval" in said.answer) == (interval is not None)


def test_scores_of_selected_images_and_other_prompts_are_not_compared() -> None:
    others = [score("tuned.st", 0.99, selection="best-of-8 by x"), score("tuned.st", 0.5, prompts=12)]
    said = found(score("base.st", 0.67), score("tuned.st", 0.7), *others)
    assert said.answer == "Yes: 0.70 after 100 steps of training against 0.67 for base.st."
    assert "(other prompts)" in found(score("base.st", 0.67), others[1]).answer


def test_without_lineage_the_best_is_named() -> None:
    said = find_headline(read_run([score("a.st", 0.5), score("b.st", 0.7), score("c.st", 0.6)], None))
    assert said.question == "Which of 3 checkpoints is best by GenEval's rules?"
    assert said.answer == "b.st: 0.70 against 0.60 for c.st."


def test_where_it_is_not_known_which_way_is_better_nothing_is_judged() -> None:
    plain = [
        {**score(name, value), "metric": "hue", "tasks": None}
        for name, value in (("base.st", 3.0), ("tuned.st", 2.0))
    ]
    assert found(*plain).answer == "2.00 after 100 steps of training against 3.00 for base.st."
    distances = [{**record, "metric": "fid"} for record in plain]
    assert found(*distances).answer.startswith("Yes: 2.00")


def test_the_judges_gain_is_told() -> None:
    points = [{"at": 1, "value": 0.7, "ci": None}, {"at": 8, "value": 0.9, "ci": None}, {"at": "x"}]
    scaling = {**score("tuned.st", 0.7), "metric": "scaling", "tasks": None, "curves": {"judge": points}}
    said = found(score("base.st", 0.67), score("tuned.st", 0.7), scaling)
    assert said.more == ["Best of 8 images by the judge: 0.90, against 0.70 for one image."]


def test_without_scores_it_says_what_there_is() -> None:
    said = find_headline(
        read_run([{"kind": "image", "path": "a.png", "prompt": "p", "checkpoint": "gone.st"}], None)
    )
    assert said.answer.startswith("1 checkpoint, 1 image; no scores")
