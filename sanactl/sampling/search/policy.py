"""When a prompt has enough images, and what a further round of it is worth. Everything here is arithmetic on probabilities.

A judge gives each image a calibrated probability of being right. The value of the k best images of a prompt is the sum of
their probabilities: the expected number of right images among them. How high the next images of a prompt will be is not
known. For each level x, the rate of images above x has a posterior: a Beta distribution. Its prior is that of the
prompt's task (mean and strength), and it is learned from the images of the same run. No ground truth is used. (Beta
distributions at all levels are a Dirichlet process: Ferguson, "A Bayesian analysis of some nonparametric problems", 1973.)

To stop when the expected gain is below a price is Weitzman's rule ("Optimal search for the best alternative", 1979). To
give the next images to the prompt with the largest expected gain is the knowledge gradient of Frazier, Powell and
Dayanik (2008). Snell et al. ("Scaling LLM test-time compute optimally", 2024) show for language models that the best
amount of sampling depends on the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from sanactl.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Belief", "Rules", "gain", "learn", "stop_reason"]

# Probabilities at which rates are known: the middles of 100 equal parts.
_LEVELS = 100
# The strength of a task's prior is averaged over these values, each as likely as the others before any image. A small
# strength means that the prompts of a task differ much.
_STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
# The likelihood of a strength is computed at every tenth level.
_EVERY = 10


@dataclass(frozen=True)
class Rules:
    """What a run of `scale` is asked for.

    Attributes:
        most: the most images of a prompt.
        round: images of a prompt in one round.
        keep: images of a prompt that are kept.
        stop: a prompt has enough if `keep` of its images are right with at least this probability.
        futile: a prompt stops if all its other images together are expected to raise the share of right images among the
            kept by less than this.
        budget: images of all prompts together; None for no limit.

    Raises:
        UsageError: a value is out of its range.
    """

    most: int = 64
    round: int = 8
    keep: int = 4
    stop: float = 0.95
    futile: float = 0.01
    budget: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("max", self.most), ("round", self.round), ("keep", self.keep)):
            if value < 1:
                raise UsageError(f"--{name} is {value}", hint="it has to be at least 1")
        if self.budget is not None and self.budget < 1:
            raise UsageError(f"--budget is {self.budget}", hint="it has to be at least 1")
        if self.keep > self.most:
            raise UsageError(f"{self.keep} images of a prompt cannot be kept of at most {self.most}")
        if not 0 < self.stop <= 1:
            raise UsageError(f"--stop is {self.stop:g}", hint="it is a probability, above 0 and at most 1")
        if not 0 <= self.futile <= 1:
            raise UsageError(f"--futile is {self.futile:g}", hint="it is an expected share, 0 to 1")


@dataclass(frozen=True)
class Belief:
    """What is known of the images of a task.

    Attributes:
        above: float64 [levels], the mean rate of images whose probability is above each level.
        strength: of the Beta prior of a prompt's rates: a prompt's own images count as much as the prior when there are
            as many of them.
    """

    above: NDArray[np.float64]
    strength: float


@lru_cache(maxsize=1)
def _levels() -> NDArray[np.float64]:
    import numpy as np

    return (np.arange(_LEVELS) + 0.5) / _LEVELS


def _number_above(values: Sequence[float]) -> NDArray[np.float64]:
    """How many of the values are above each level."""
    import numpy as np

    above = np.array(values, dtype=np.float64)[None, :] > _levels()[:, None]
    return above.sum(1).astype(np.float64)


def learn(prompts: Sequence[Sequence[float]]) -> Belief:
    """What the images of a task say about its other images.

    Args:
        prompts: for each prompt of the task, the calibrated probabilities of its images so far. All prompts with images
            count, and not only those that are done: the easy ones are done first, and would give too high rates.
    """
    import numpy as np

    # One image of a judge whose probabilities are uniform stands before all, so that there is a mean before any image.
    rows = [(1 - _levels(), 1), *((_number_above(p), len(p)) for p in prompts if len(p))]
    above, counts = np.stack([row for row, _ in rows]), np.array([n for _, n in rows], dtype=np.float64)
    means = [_mean_rates(above, counts, strength) for strength in _STRENGTHS]
    logs = [
        _log_likelihood(above[1:, ::_EVERY], counts[1:], mean[::_EVERY], strength)
        for mean, strength in zip(means, _STRENGTHS, strict=True)
    ]
    weights = [math.exp(log - max(logs)) for log in logs]
    log = sum(w * math.log(s) for w, s in zip(weights, _STRENGTHS, strict=True)) / sum(weights)
    strength = math.exp(log)
    return Belief(_mean_rates(above, counts, strength), strength)


def _mean_rates(
    above: NDArray[np.float64], counts: NDArray[np.float64], strength: float
) -> NDArray[np.float64]:
    """The mean rates that equal the mean of the prompts' posterior means: weights n / (n + strength).

    Args:
        above: [prompts, levels], numbers of images above each level.
        counts: [prompts], numbers of images.
    """
    found: NDArray[np.float64] = (above / (counts + strength)[:, None]).sum(0)
    return found / (counts / (counts + strength)).sum()


def _log_likelihood(
    above: NDArray[np.float64], counts: NDArray[np.float64], mean: NDArray[np.float64], strength: float
) -> float:
    """Of beta-binomial numbers above the levels. Levels are not independent, so their mean counts and not their sum."""
    total = 0.0
    for level, rate in enumerate(mean.tolist()):
        a, b = max(rate, 1e-9) * strength, max(1 - rate, 1e-9) * strength
        start = _log_beta(a, b)
        for k, n in zip(above[:, level].tolist(), counts.tolist(), strict=True):
            total += _log_beta(a + k, b + n - k) - start
    return total / len(mean)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def gain(values: Sequence[float], count: int, keep: int, belief: Belief) -> float:
    """By how much `count` further images of a prompt raise the expected number of right images among its `keep` best.

    The sum of the k largest of some probabilities is the integral over x from 0 to 1 of min(k, number above x). So the
    expected gain is an integral over x. The number of new images above x is beta-binomial.

    Args:
        values: calibrated probabilities of the prompt's images so far.
        count: of further images.
        keep: of the images that are kept.
        belief: of the prompt's task.
    """
    import numpy as np

    here = _number_above(values)
    free = np.maximum(keep - here, 0)
    a = belief.strength * belief.above + here + 1e-12
    b = belief.strength * (1 - belief.above) + (len(values) - here) + 1e-12
    each = np.arange(count)[:, None]
    none = np.exp((np.log(b + each) - np.log(a + b + each)).sum(0))  # no new image above the level
    more, total = 1 - none, np.zeros(_LEVELS)  # more: the probability of more than j of them, j = 0
    for j in range(min(int(free.max()), count)):
        total += np.where(free > j, more, 0.0)
        none = none * (count - j) / (j + 1) * (a + j) / (b + count - j - 1)
        more = np.maximum(more - none, 0.0)
    return float(total.sum()) / _LEVELS


def stop_reason(values: Sequence[float], rules: Rules, belief: Belief) -> str | None:
    """Why a prompt needs no more images, or None.

    Args:
        values: calibrated probabilities of its images so far, at least one.
        rules, belief: of the run and of the prompt's task.

    Returns:
        "enough": `keep` images are right with probability `stop`. "max": all its images are drawn. "futile": the rest of
        them is expected to bring less than `Rules.futile`.
    """
    if sum(p >= rules.stop for p in values) >= rules.keep:
        return "enough"
    rest = rules.most - len(values)
    if rest <= 0:
        return "max"
    if len(values) >= rules.keep and gain(values, rest, rules.keep, belief) < rules.futile * rules.keep:
        return "futile"
    return None
