"""Measuring a judge: its agreement with the detector, and the score of the images that it chooses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sanactl.records.records import Record
from sanactl.records.scores import new_score
from sanactl.scoring.agreement import auc

if TYPE_CHECKING:
    from sanactl.world.judge_network import JudgeNetwork
    from sanactl.world.judge_pool import Pool

__all__ = ["agreement", "measure", "score_records", "selection"]


def agreement(scores: NDArray[np.float64], truth: NDArray[np.bool_], tags: Sequence[str]) -> dict[str, float]:
    """`balanced_accuracy`, `auc`, `accuracy`, `yes_rate` (of the truth) and the accuracy of each task.

    Args:
        scores: above 0 for a yes.
        truth: the detector's verdicts.
        tags: the tasks.
    """
    said = scores > 0
    halves = [float((said == truth)[truth == side].mean()) for side in (True, False) if (truth == side).any()]
    figures = {
        "balanced_accuracy": float(np.mean(halves)),
        "auc": auc(scores, truth),
        "accuracy": float((said == truth).mean()),
        "yes_rate": float(truth.mean()),
    }
    named = np.asarray(tags)
    for tag in sorted(set(tags)):
        figures[f"accuracy_{tag}"] = float((said == truth)[named == tag].mean())
    return figures


def selection(
    scores: NDArray[np.float64], truth: NDArray[np.bool_], prompts: Sequence[str]
) -> dict[str, float]:
    """What choosing one image a prompt gives: at random (`one`), by score (`best`), by the detector (`ceiling`).

    Only prompts with two images or more; `gap_closed` is the score's share of the way from `one` to `ceiling`.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for i, prompt in enumerate(prompts):
        groups[prompt].append(i)
    chosen = [np.asarray(g) for g in groups.values() if len(g) > 1]
    if not chosen:
        return {}
    one = float(np.mean([truth[g].mean() for g in chosen]))
    best = float(np.mean([truth[g[int(np.argmax(scores[g]))]] for g in chosen]))
    ceiling = float(np.mean([truth[g].any() for g in chosen]))
    closed = (best - one) / (ceiling - one) if ceiling > one else 1.0
    return {"one": one, "best": best, "ceiling": ceiling, "gap_closed": closed}


def score_records(figures: Mapping[str, float]) -> list[Record]:
    """The figures of `measure` as score records `judge_NAME`; the accuracy of each task is a task of `judge_accuracy`."""
    before = "accuracy_"
    tasks = {
        name.removeprefix(before): {"value": v} for name, v in figures.items() if name.startswith(before)
    }
    return [
        new_score(f"judge_{name}", value, **({"tasks": tasks} if name == "accuracy" and tasks else {}))
        for name, value in figures.items()
        if not name.startswith(before)
    ]


def measure(
    network: JudgeNetwork, pool: Pool, *, own: bool, seed: int = 0, batch_size: int = 128
) -> dict[str, float]:
    """Asks a network about a pool: each image's own prompt, or four questions an image."""
    import torch

    from sanactl.world.judge_network import pixels
    from sanactl.world.judge_questions import ask, own_question

    rng = np.random.default_rng([seed, 0xE7A1])
    scores: list[NDArray[np.float64]] = []
    truth: list[bool] = []
    tags: list[str] = []
    prompts: list[str] = []
    with torch.no_grad():
        for start in range(0, len(pool), batch_size):
            views = [pool.view(i, False) for i in range(start, min(start + batch_size, len(pool)))]
            patches = network.see(pixels(views))
            asked = [[own_question(v)] if own else ask(v, 4, rng) for v in views]
            for place in range(len(asked[0])):
                column = [q[place] for q in asked]
                scores.append(network.answer_scores(patches, column).double().numpy())
                truth += [q.correct for q in column]
                tags += [str(q.record["tag"]) for q in column]
                prompts += [str(q.record["prompt"]) for q in column]
    values, labels = np.concatenate(scores), np.asarray(truth)
    figures = agreement(values, labels, tags)
    return figures | selection(values, labels, prompts) if own else figures
