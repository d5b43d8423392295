"""What `scale` would do with images that exist: the decisions of a run, on a pool of judged images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sanactl.sampling.search.policy import Rules
from sanactl.sampling.search.rounds import Rounds

__all__ = ["Pooled", "Simulated", "simulate"]


@dataclass(frozen=True)
class Pooled:
    """The images of one prompt, by index.

    Attributes:
        task: of the prompt.
        values: the judge's calibrated probabilities.
        correct: whether each is right, by the ground truth. The decisions do not see it.
    """

    task: str
    values: Sequence[float]
    correct: Sequence[bool]


@dataclass(frozen=True)
class Simulated:
    """A run on a pool: for each prompt the share of right images among the kept, and the number of images.

    Attributes:
        score, images: of the rules.
        full_score, full_images: where each prompt gets all its images.
        oracle_score, oracle_images: of a judge that is never wrong, and stops at the wanted number of right images.
        stopped: number of prompts by reason.
    """

    score: list[float]
    images: list[int]
    full_score: list[float]
    full_images: list[int]
    oracle_score: list[float]
    oracle_images: list[int]
    stopped: dict[str, int]


def simulate(pool: Sequence[Pooled], rules: Rules) -> Simulated:
    """Runs `Rounds` on a pool, with each prompt's images as they would be drawn.

    Args:
        pool: each prompt has at least `rules.most` images.

    Raises:
        UsageError: the budget is too small for one image of each prompt.
    """
    rounds = Rounds([p.task for p in pool], rules)
    while images := rounds.next_images():
        rounds.add(images, [pool[place].values[i] for place, indexes in images for i in indexes])
    full = [min(rules.most, len(p.values)) for p in pool]
    stopped: dict[str, int] = {}
    for why in rounds.stopped:
        stopped[str(why)] = stopped.get(str(why), 0) + 1
    return Simulated(
        score=[_share(p, len(v), rules.keep) for p, v in zip(pool, rounds.values, strict=True)],
        images=[len(v) for v in rounds.values],
        full_score=[_share(p, n, rules.keep) for p, n in zip(pool, full, strict=True)],
        full_images=full,
        oracle_score=[
            min(sum(p.correct[:n]), rules.keep) / rules.keep for p, n in zip(pool, full, strict=True)
        ],
        oracle_images=[_first(p.correct[:n], rules.keep) for p, n in zip(pool, full, strict=True)],
        stopped=stopped,
    )


def _share(prompt: Pooled, drawn: int, keep: int) -> float:
    """The share of right images among the `keep` best of the first `drawn`."""
    best = sorted(range(drawn), key=lambda i: (-prompt.values[i], i))[:keep]
    return sum(prompt.correct[i] for i in best) / keep


def _first(correct: Sequence[bool], keep: int) -> int:
    """Images until `keep` of them are right; all of them if they never are."""
    found = 0
    for number, right in enumerate(correct, 1):
        found += right
        if found == keep:
            return number
    return len(correct)
