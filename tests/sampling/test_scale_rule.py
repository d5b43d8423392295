"""The rule of `scale`: the gain of more images, reasons to stop, budgets; and `eval scale`, which replays it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sanactl.errors import UsageError
from sanactl.sampling.search.policy import Belief, Rules, gain, learn, stop_reason
from sanactl.sampling.search.rounds import Rounds
from sanactl.sampling.search.simulate import Pooled, simulate
from tests.program import Program


def test_the_gain_is_that_of_an_urn() -> None:
    """Against drawing from a Polya urn: a further image is one of the prompt's, or one of the task's."""
    belief = learn([[0.9, 0.2], [0.8, 0.7, 0.1], [0.05, 0.04]])
    # Values in the middle between two levels, with the task's rates as their distribution.
    points = np.arange(101) / 100
    masses = -np.diff([1, *belief.above, 0])
    random = np.random.default_rng(0)
    values, keep, count, runs, total = [0.3, 0.6], 2, 5, 4000, 0.0
    for _ in range(runs):
        urn = list(values)
        for _ in range(count):
            task = random.random() < belief.strength / (belief.strength + len(urn))
            urn.append(float(random.choice(points, p=masses)) if task else urn[random.integers(len(urn))])
        total += sum(sorted(urn)[-keep:]) - sum(sorted(values)[-keep:])
    assert gain(values, count, keep, belief) == pytest.approx(total / runs, abs=0.02)


def test_more_images_gain_more_and_less_where_the_best_are_good() -> None:
    belief = learn([[0.9, 0.1], [0.2, 0.95], [0.5, 0.6]])
    gains = [gain([0.4], count, 1, belief) for count in (1, 2, 4, 8, 64, 2048)]
    assert gains == sorted(gains) and gains[0] > 0 and gains[-1] <= 0.61
    assert gain([0.99], 8, 1, belief) < gain([0.5], 8, 1, belief) < gain([0.1], 8, 1, belief)
    assert gain([0.99, 0.1], 8, 2, belief) > gain([0.99, 0.99], 8, 2, belief)
    # A prompt that has failed often is expected to fail again.
    assert gain([0.1] * 16, 8, 1, belief) < gain([0.1] * 2, 8, 1, belief)


def test_a_task_is_known_by_its_prompts() -> None:
    alike, apart = learn([[0.9, 0.1]] * 8), learn([[0.9, 0.9], [0.1, 0.1]] * 4)
    assert alike.strength > apart.strength
    assert alike.above[50] == pytest.approx(0.5, abs=0.05)
    assert learn([[0.9] * 4] * 8).above[50] > 0.9 > 0.1 > learn([[0.1] * 4] * 8).above[50]
    assert isinstance(learn([]), Belief)


def test_reasons_to_stop() -> None:
    rules = Rules(most=16, keep=2, stop=0.9, futile=0.01)
    good = learn([[0.95, 0.9, 0.2]] * 4)
    assert stop_reason([0.95], rules, good) is None
    assert stop_reason([0.95, 0.2, 0.9], rules, good) == "enough"
    assert stop_reason([0.95, *[0.2] * 15], rules, good) == "max"
    hopeless = learn([[0.01] * 8] * 40)
    assert stop_reason([0.01] * 8, rules, hopeless) == "futile"
    assert stop_reason([0.01], rules, hopeless) is None  # two images are kept, so two are needed


def test_a_budget_goes_where_the_gain_is() -> None:
    """Easy prompts stop; hopeless ones of another task get little; what is left goes to the others."""
    random = np.random.default_rng(0)

    def pooled(rate: float, task: str) -> Pooled:
        right = random.random(16) < rate
        return Pooled(task, np.where(right, 0.97, 0.03).tolist(), right.tolist())

    easy, middle = [pooled(0.9, "a") for _ in range(10)], [pooled(0.3, "b") for _ in range(10)]
    pool = [*easy, *middle, *[pooled(0.0, "c") for _ in range(10)]]
    rounds = Rounds([p.task for p in pool], Rules(most=16, round=2, keep=1, budget=80))
    while images := rounds.next_images():
        rounds.add(images, [pool[place].values[i] for place, indexes in images for i in indexes])
    used = [sum(map(len, rounds.values[10 * i : 10 * i + 10])) for i in range(3)]
    assert used[0] <= 22 and used[1] > used[2] and sum(used) == 80, used
    assert set(rounds.stopped) == {"enough", "budget"}
    found = simulate(pool, Rules(most=16, round=2, keep=1, budget=180))
    assert sum(found.images) <= 180 and set(found.full_images) == {16} and found.stopped["enough"] >= 19
    assert np.mean(found.score) >= np.mean(found.full_score) - 0.05
    assert np.mean(found.oracle_images) < 16
    more = Rounds([p.task for p in pool], Rules(most=16, round=2, keep=1, budget=30))
    assert more.next_images() == [(i, range(1)) for i in range(30)]
    with pytest.raises(UsageError, match="less than one for each of 31 prompts"):
        Rounds([""] * 31, Rules(budget=30))


def labelled(rights: list[str]) -> list[dict[str, Any]]:
    """Records of judged and labelled images: a prompt for each text, y an image that is right, and so judged."""
    return [
        {
            "kind": "image", "path": f"{prompt}/{index}.png", "prompt": f"prompt {prompt}", "index": index,
            "samples": len(images), "judge": "j", "verdict": "yes" if right == "y" else "no",
            "yes_logprob": -0.01 if right == "y" else -4.6, "no_logprob": -4.6 if right == "y" else -0.01,
            "correct": right == "y",
        }
        for prompt, images in enumerate(rights)
        for index, right in enumerate(images)
    ]  # fmt: skip


def test_a_replay_has_the_score_and_the_images_of_the_rules(place: Path, sanactl: Program) -> None:
    records = labelled(["ynnn", "nynn", "nnny", "yyyy", "nnnn"])
    text = "".join(json.dumps(r) + "\n" for r in records[::-1])

    def values(*options: str) -> dict[str, float]:
        found = sanactl("eval", "scale", "-", "--force", *options, stdin=text)
        assert found[:20] == records[::-1]
        return {r["metric"]: r["value"] for r in found[20:]}

    found = values("-k", "1", "--round", "1", "--futile", "0")
    assert found == {
        "scale_score": 0.8, "scale_images": (1 + 2 + 4 + 1 + 4) / 5, "scale_full_score": 0.8,
        "scale_full_images": 4, "scale_oracle_score": 0.8, "scale_oracle_images": 2.4,
    }  # fmt: skip
    found = values("-k", "2", "--max", "3", "--stop", "1")
    assert found["scale_images"] == found["scale_full_images"] == 3 and found["scale_full_score"] == 0.4
    assert values("-k", "1", "--round", "1", "--budget", "5")["scale_images"] == 1
    assert json.loads(Path("scale-replay.jsonl").read_text().splitlines()[-1])["prompts"] == 5


@pytest.mark.parametrize(
    ("change", "options", "said", "code"),
    [
        ({"correct": None}, (), "0/0.png: no label 'correct' in its record", 1),
        ({"human": "perhaps"}, ("--truth", "human"), "'human' is 'perhaps', and not a label", 1),
        ({"yes_logprob": None}, (), "0/0.png: no verdict of a judge in its record", 1),
        ({"samples": 9}, (), "prompt 'prompt 0' has 2 of its 9 images", 1),
        ({}, ("--stop", "nan"), "stop is nan", 2),
        ({}, ("--keep", "3"), "3 images of a prompt cannot be kept of at most 2", 2),
        ({}, ("--budget", "1"), "a budget of 1 images is less than one for each of 2 prompts", 2),
    ],
)
def test_what_cannot_be_replayed(
    place: Path, sanactl: Program, change: dict[str, Any], options: tuple[str, ...], said: str, code: int
) -> None:
    records = labelled(["yn", "ny"])
    text = "".join(json.dumps({**r, **change}) + "\n" for r in records)
    assert said in sanactl.fails("eval", "scale", "-", "-k", "1", *options, stdin=text, code=code)
