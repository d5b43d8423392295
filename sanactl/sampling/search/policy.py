"""When a prompt has enough images, and what a further round of it is worth. Everything here is arithmetic on probabilities.

A judge gives each image a calibrated probability of being right. The value of the k best images of a prompt is the sum of
their probabilities: the expected number of right images among them. A prompt's rate of right images is unknown. Its
posterior is a Beta distribution, whose prior is that of the prompt's task. The prior, and the probabilities that right and
wrong images of the task get, are learned from the images of the same run. No ground truth is used.

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

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Belief", "Rules", "gain", "learn", "stop_reason"]

# Probabilities at which distributions are evaluated: the middles of 100 equal parts.
_LEVELS = 100
# Nodes of the integral over a prompt's rate.
_NODES = 64
# The prior of a task is averaged over these means and strengths (a + b), each as likely as the others before any image.
_MEANS = tuple((2 * i + 1) / 40 for i in range(20))
_STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


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
    """

    most: int = 64
    round: int = 8
    keep: int = 4
    stop: float = 0.95
    futile: float = 0.01
    budget: int | None = None


@dataclass(frozen=True)
class Belief:
    """What is known of the images of a task.

    Attributes:
        a, b: of the Beta distribution of its prompts' rates of right images.
        right, wrong: float64 [levels], the share of right and of wrong images whose probability is above each level.
    """

    a: float
    b: float
    right: NDArray[np.float64]
    wrong: NDArray[np.float64]


@lru_cache(maxsize=1)
def _levels() -> NDArray[np.float64]:
    import numpy as np

    return (np.arange(_LEVELS) + 0.5) / _LEVELS


def learn(prompts: Sequence[Sequence[float]]) -> Belief:
    """What the images of a task say about its other images.

    Args:
        prompts: for each prompt of the task, the calibrated probabilities of its images so far. The number of images of a
            prompt may depend on them: the likelihood of a Beta distribution is the same under any rule for stopping. For
            this reason all prompts count here, and not only those that are done: easy prompts are done first.
    """
    import numpy as np

    counts = [(math.fsum(p), len(p)) for p in prompts if len(p)]
    a, b = _prior(counts)
    values = np.array([p for prompt in prompts for p in prompt], dtype=np.float64)
    x = _levels()
    above = values[None, :] > x[:, None]
    # One right and one wrong image of a judge whose probabilities are uniform, so that there is a value before any image.
    right = (above @ values + (1 - x**2)) / (values.sum() + 1)
    wrong = (above @ (1 - values) + (1 - x) ** 2) / ((1 - values).sum() + 1)
    return Belief(a, b, right, wrong)


def _prior(counts: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """The Beta distribution of rates, from (expected number of right images, number of images) of each prompt.

    It has the posterior mean of the mean, and of the logarithm of the strength, over a grid.
    """
    logs, grid = [], [(mean, strength) for strength in _STRENGTHS for mean in _MEANS]
    for mean, strength in grid:
        a, b = mean * strength, (1 - mean) * strength
        start = _log_beta(a, b)
        logs.append(math.fsum(_log_beta(a + s, b + n - s) - start for s, n in counts))
    largest = max(logs)
    weights = [math.exp(log - largest) for log in logs]
    total = math.fsum(weights)
    mean = math.fsum(w * m for w, (m, _) in zip(weights, grid, strict=True)) / total
    strength = math.exp(math.fsum(w * math.log(s) for w, (_, s) in zip(weights, grid, strict=True)) / total)
    return mean * strength, (1 - mean) * strength


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def gain(values: Sequence[float], count: int, keep: int, belief: Belief) -> float:
    """By how much `count` further images of a prompt raise the expected number of right images among its `keep` best.

    The sum of the k largest of some probabilities is the integral over x from 0 to 1 of min(k, number above x). So the
    expected gain is an integral over x, in which the number of new images above x is binomial.

    Args:
        values: calibrated probabilities of the prompt's images so far.
        count: of further images.
        keep: of the images that are kept.
        belief: of the prompt's task.
    """
    import numpy as np

    expected = math.fsum(values)
    rates, weights = _posterior(belief.a + expected, belief.b + len(values) - expected)
    above = (np.array(values, dtype=np.float64)[None, :] > _levels()[:, None]).sum(1)
    free = keep - np.minimum(above, keep)  # [levels]
    # A new image's probability is above the level, for each level and rate: [levels, nodes].
    hit = np.clip(belief.right[:, None] * rates + belief.wrong[:, None] * (1 - rates), 0.0, 1 - 1e-12)
    odds, pmf = hit / (1 - hit), (1 - hit) ** count
    more = 1 - pmf  # the probability of more than j new images above the level, j = 0
    total = np.zeros(len(free))
    for j in range(min(int(free.max()), count)):
        total += np.where(free > j, more @ weights, 0.0)
        pmf = pmf * odds * ((count - j) / (j + 1))
        more = np.maximum(more - pmf, 0.0)
    return float(total.sum()) / _LEVELS


def _posterior(a: float, b: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights of a Beta distribution: equal steps of an angle whose squared sine is the rate."""
    import numpy as np

    angle = (np.arange(_NODES) + 0.5) * (math.pi / 2 / _NODES)
    rates = np.sin(angle) ** 2
    logs = (a - 0.5) * np.log(rates) + (b - 0.5) * np.log1p(-rates)
    weights = np.exp(logs - logs.max())
    return rates, weights / weights.sum()


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
