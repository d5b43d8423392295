"""How well scores agree with yes-or-no truth: each figure as a function of weights of images, so that it can be bootstrapped.

An image's weight is how often it counts. With all weights 1 the figures are those of the textbook.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "Ranking", "Reliability", "auc", "best_of_groups", "pair_accuracy"]

Array = NDArray[np.float64]

# Bins of the calibration error, of equal mass (Nixon et al. 2019; 15 as in Guo et al. 2017).
BINS = 15


class Ranking:
    """The area under the ROC curve of scores, for any weights.

    Args:
        scores: float64 [N].
        truth: bool [N].
    """

    def __init__(self, scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> None:
        values, self._place = np.unique(scores, return_inverse=True)
        self._count, self._truth = len(values), truth

    def auc(self, weights: Array) -> float:
        """How often a right image scores above a wrong one, ties counting half; NaN where one of the two is missing.

        Args:
            weights: float64 [N].
        """
        right = np.bincount(self._place, weights * self._truth, self._count)
        wrong = np.bincount(self._place, weights * ~self._truth, self._count)
        pairs = right.sum() * wrong.sum()
        if not pairs:
            return float("nan")
        below = np.cumsum(wrong) - wrong
        return float((right * (below + wrong / 2)).sum() / pairs)


def auc(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """`Ranking.auc` with all weights 1; 0.5 where one of the two kinds is missing."""
    found = Ranking(scores, truth).auc(np.ones(len(scores)))
    return found if found == found else 0.5


def pair_accuracy(scores: NDArray[np.float64], truth: NDArray[np.bool_], groups: NDArray[np.int64]) -> Array:
    """For each group (the images of a prompt) its own `auc`: what best of n needs; NaN where all are alike.

    Args:
        scores, truth: of N images.
        groups: int64 [N], numbers from 0.
    """
    count = int(groups.max()) + 1 if len(groups) else 0
    places = np.unique(scores, return_inverse=True)[1]
    order = np.lexsort((places, groups))
    key = groups[order] * (len(scores) + 1) + places[order]
    # Images of a group with equal scores are one tie.
    _, tie = np.unique(key, return_inverse=True)
    of_tie = np.zeros(int(tie.max()) + 1 if len(tie) else 0, dtype=np.int64)
    of_tie[tie] = groups[order]
    right = np.bincount(tie, truth[order].astype(float), len(of_tie))
    wrong = np.bincount(tie, (~truth[order]).astype(float), len(of_tie))
    before = np.cumsum(wrong) - wrong
    rights, wrongs = (np.bincount(of_tie, side, count) for side in (right, wrong))
    below = before - (np.cumsum(wrongs) - wrongs)[of_tie]
    pairs = rights * wrongs
    won = np.bincount(of_tie, right * (below + wrong / 2), count)
    return np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1), np.nan)


def best_of_groups(
    scores: NDArray[np.float64], values: Array, groups: NDArray[np.int64], count: int
) -> Array:
    """The mean of `values` [N, K] over each group's images of the highest score: float64 [count, K].

    Several images of a group may have the highest score. Groups without images have NaN.
    """
    highest = np.full(count, -np.inf)
    np.maximum.at(highest, groups, scores)
    best = scores == highest[groups]
    members = np.bincount(groups[best], minlength=count)
    sums = np.stack([np.bincount(groups[best], column[best], count) for column in values.T], axis=1)
    with np.errstate(invalid="ignore"):
        found: Array = sums / members[:, None]
    return found


class Reliability:
    """Predicted probabilities against how often they come true, in bins of equal mass.

    Images are sorted by their probability and cut into bins of the same total weight. An image that lies on a cut counts
    in both bins by its parts. Images of equal probability share their mean truth, so their order does not matter.

    Args:
        probabilities: float64 [N], in [0, 1].
        truth: bool [N].
        bins: how many; with fewer images, as many as there are images.
    """

    def __init__(self, probabilities: Array, truth: NDArray[np.bool_], bins: int = BINS) -> None:
        self._values, self._place = np.unique(probabilities, return_inverse=True)
        self._truth = truth.astype(np.float64)
        self.bins = max(1, min(bins, len(probabilities)))

    def curve(self, weights: Array) -> tuple[Array, Array]:
        """(mean probability [bins], share that is right [bins]).

        Args:
            weights: float64 [N], their sum above 0.
        """
        mass = np.bincount(self._place, weights, len(self._values))
        right = np.bincount(self._place, weights * self._truth, len(self._values))
        ends = np.concatenate([[0.0], np.cumsum(mass)])
        cuts = np.linspace(0.0, ends[-1], self.bins + 1)
        sums = [
            np.interp(cuts, ends, np.concatenate([[0.0], np.cumsum(part)]))
            for part in (mass * self._values, right)
        ]
        width = ends[-1] / self.bins
        predicted, true = (np.diff(s) / width for s in sums)
        return predicted, true

    def error(self, weights: Array) -> float:
        """The expected calibration error: the mean over bins of |mean probability - share that is right|."""
        predicted, true = self.curve(weights)
        return float(np.abs(predicted - true).mean())
