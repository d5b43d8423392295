"""Intervals for means over tasks: what a score might have been with other prompts of the same kind.

Prompts are the units: images of one prompt succeed and fail together, so that intervals from single images would be
far too narrow. The interval is Wilson's (1927) for a share of n_eff independent trials. With one image a prompt n_eff
is the number of prompts. With several it follows from the variance between prompts, and lies between the number of
prompts and that of images. Such an interval has a width where all prompts score alike, and stays in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST", "Estimate", "bootstrap", "mean_of_prompts", "mean_of_tasks"]

Array = NDArray[np.float64]

# Prompts below which there is no interval: it would span most of [0, 1] and cover less often than it says.
FEWEST = 5


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval, each float64 [K] for K quantities that were measured on the same prompts.

    `low` and `high` are None where there were fewer than `FEWEST` prompts.
    """

    value: Array
    low: Array | None
    high: Array | None


def mean_of_tasks(
    sums: Mapping[str, Array],
    counts: Mapping[str, Array],
    *,
    images: Mapping[str, Array] | None = None,
    level: float = 0.95,
) -> tuple[Estimate, dict[str, Estimate]]:
    """The mean of every task, the mean of these means, and intervals of all of them.

    A task's mean is that over its images: sum(sums) / sum(counts).

    Args:
        sums: for each task float64 [prompts] or [prompts, K], a prompt's values, each from 0 to 1, summed over its
            images.
        counts: for each task float64 [prompts], how many values a prompt's sum is of; above 0.
        images: for each task float64 [prompts], how many images a prompt has; by default `counts`.
        level: the interval's coverage.

    Returns:
        the overall estimate, and one for each task.

    Raises:
        ValueError: there is no task, or a task without prompts.
    """
    if not sums or any(len(s) == 0 for s in sums.values()):
        raise ValueError("a mean of task means needs at least one task, and a prompt in each")
    parts = {}
    for task, task_sums in sums.items():
        s = np.asarray(task_sums, dtype=np.float64).reshape(len(task_sums), -1)
        n = np.asarray(counts[task], dtype=np.float64)
        total = float(n.sum() if images is None else images[task].sum())
        parts[task] = _Part(s.sum(axis=0) / n.sum(), _variance(s, n), len(s), total)
    count = len(parts)
    whole = _Part(
        np.mean([p.value for p in parts.values()], axis=0),
        np.sum([p.variance for p in parts.values()], axis=0) / count**2,
        # So many prompts, evenly divided among the tasks, would give the same variance.
        count**2 / sum(1 / p.prompts for p in parts.values()),
        count**2 / sum(1 / p.images for p in parts.values()),
    )
    enough = sum(p.prompts for p in parts.values()) >= FEWEST
    return (
        _estimate(whole, level, enough),
        {task: _estimate(part, level, part.prompts >= FEWEST) for task, part in parts.items()},
    )


@dataclass(frozen=True)
class _Part:
    """A mean [K], the variance of that mean [K], and what it is of."""

    value: Array
    variance: Array
    prompts: float
    images: float


def _variance(sums: Array, counts: Array) -> Array:
    """float64 [K]: the variance of a task's mean, from the variance between its prompts.

    Two prompts of half a weight, one all wrong and one all right, are added (Jeffreys' prior): prompts that happen to
    score alike do not show that all would. It is the variance of the mean when prompts get random weights (the
    Bayesian bootstrap, Rubin 1981).
    """
    rates = sums / counts[:, None]
    shape = (1, rates.shape[1])
    rates = np.concatenate([rates, np.zeros(shape), np.ones(shape)])
    weights = np.concatenate([counts / counts.mean(), [0.5, 0.5]])[:, None]
    total = weights.sum()
    mean = (weights * rates).sum(axis=0) / total
    spread: Array = (weights * (rates - mean) ** 2).sum(axis=0) / total
    return spread / (total + 1)


def _estimate(part: _Part, level: float, enough: bool) -> Estimate:
    """A mean with Wilson's interval."""
    if not enough:
        return Estimate(part.value, None, None)
    p = np.clip(part.value, 0.0, 1.0)
    trials = np.clip(p * (1 - p) / part.variance, part.prompts, max(part.images, part.prompts))
    z = NormalDist().inv_cdf((1 + level) / 2)
    center = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    reach = z / (1 + z * z / trials) * np.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2))
    return Estimate(part.value, np.maximum(center - reach, 0.0), np.minimum(center + reach, 1.0))


def mean_of_prompts(values: Sequence[Sequence[float]], *, level: float = 0.95) -> Estimate:
    """The mean over all images of a measure without bounds, with a normal interval over prompts.

    Args:
        values: for each prompt, its images' values; none is empty.
        level: the interval's coverage.

    Returns:
        an estimate of one quantity. The variance is that of a ratio of sums over prompts, since images of one prompt are
        alike (Cochran 1977, 6.3).
    """
    sums, counts = (np.array([f(v) for v in values], dtype=np.float64) for f in (sum, len))
    total, prompts = counts.sum(), len(values)
    mean = sums.sum() / total
    if prompts < FEWEST:
        return Estimate(np.array([mean]), None, None)
    variance = ((sums - mean * counts) ** 2).sum() * prompts / (prompts - 1) / total**2
    reach = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt(variance)
    return Estimate(np.array([mean]), np.array([mean - reach]), np.array([mean + reach]))


def bootstrap(
    statistic: Callable[[Array], Array],
    prompts: int,
    *,
    draws: int = 500,
    level: float = 0.95,
    seed: int = 0,
    basic: NDArray[np.bool_] | None = None,
) -> Estimate:
    """Any statistics with intervals from drawing prompts anew (Efron 1979).

    Args:
        statistic: float64 [K] from weights float64 [prompts], how often each prompt counts; NaN where it is undefined.
        prompts: how many there are; fewer than `FEWEST` have no interval, and neither have prompts that are all alike.
        draws: how many samples of prompts are drawn.
        level: the interval's coverage.
        seed: of the draws.
        basic: bool [K], the statistics that a sample of prompts exaggerates, such as a calibration error: their interval
            is mirrored at the value, and not below 0.
    """
    value = np.asarray(statistic(np.ones(prompts)), dtype=np.float64)
    if prompts < FEWEST:
        return Estimate(value, None, None)
    rng = np.random.default_rng([seed, prompts])
    chances = np.full(prompts, 1 / prompts)
    found = np.stack([statistic(rng.multinomial(prompts, chances).astype(np.float64)) for _ in range(draws)])
    # A figure that is undefined in most samples has no interval, and one that is the same in all of them has none either:
    # 6 of 6 right prompts do not show that all prompts are right.
    undefined = np.isnan(value) | (np.isnan(found).mean(axis=0) > 0.5)
    found[:, undefined] = 0.0
    undefined |= np.nanmax(found, axis=0) - np.nanmin(found, axis=0) <= 1e-12
    low, high = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0)
    if basic is not None:
        mirrored = np.maximum(2 * value - high, 0), np.maximum(2 * value - low, 0)
        low, high = np.where(basic, mirrored[0], low), np.where(basic, mirrored[1], high)
    return Estimate(value, np.where(undefined, np.nan, low), np.where(undefined, np.nan, high))
