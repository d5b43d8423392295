"""Bootstrap intervals for means over tasks: what a score would have been with other prompts of the same kind.

The prompts of each task are drawn anew with replacement, and the images of one prompt stay together: images
of one prompt succeed and fail together, so that resampling images would give intervals that are far too
narrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Estimate", "bootstrap_task_means"]

Array = NDArray[np.float64]

RESAMPLES = 2000
# Draws are made in parts of about this many numbers: 32 MB.
_PART = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval, each float64 [K] for K quantities that were measured on the same prompts."""

    value: Array
    low: Array
    high: Array


def bootstrap_task_means(
    sums: Mapping[str, Array],
    counts: Mapping[str, Array],
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Estimate, dict[str, Estimate]]:
    """The mean of every task, the mean of these means, and percentile bootstrap intervals of all of them.

    A task's mean is that over its images: sum(sums) / sum(counts). An interval has no width where all prompts
    of a task score alike; such a task is then too easy or too hard to tell how sure its score is.

    Args:
        sums: for each task float64 [prompts] or [prompts, K], a prompt's values summed over its images.
        counts: for each task float64 [prompts], how many images a prompt has; above 0.
        level: the interval's coverage.
        resamples: how many times the prompts are drawn.
        seed: the result is a function of it and of the arguments.

    Returns:
        the overall estimate, and one for each task.

    Raises:
        ValueError: there is no task, or a task without prompts.
    """
    if not sums or any(len(s) == 0 for s in sums.values()):
        raise ValueError("a mean of task means needs at least one task, and a prompt in each")
    rng = np.random.default_rng(seed)
    values: dict[str, Array] = {}
    draws: dict[str, Array] = {}
    for task, task_sums in sums.items():
        s = np.asarray(task_sums, dtype=np.float64).reshape(len(task_sums), -1)
        n = np.asarray(counts[task], dtype=np.float64)
        values[task] = s.sum(axis=0) / n.sum()
        draws[task] = _resampled_means(s, n, resamples, rng)
    tails = [(1 - level) / 2, (1 + level) / 2]

    def estimate(value: Array, drawn: Array) -> Estimate:
        low, high = np.quantile(drawn, tails, axis=0)
        return Estimate(value, low, high)

    overall = estimate(np.mean(list(values.values()), axis=0), np.mean(list(draws.values()), axis=0))
    return overall, {task: estimate(values[task], draws[task]) for task in values}


def _resampled_means(sums: Array, counts: Array, resamples: int, rng: np.random.Generator) -> Array:
    """float64 [resamples, K]: means over as many prompts as there are, drawn with replacement."""
    prompts = len(sums)
    even = np.full(prompts, 1 / prompts)
    step = max(1, _PART // prompts)
    parts = []
    for start in range(0, resamples, step):
        # How often each prompt was drawn says all that a mean needs, and turns the resampling into two
        # products.
        times = rng.multinomial(prompts, even, size=min(step, resamples - start)).astype(np.float64)
        parts.append((times @ sums) / (times @ counts)[:, None])
    return np.concatenate(parts)
