"""What best-of-n gives on average over all choices of n among the N images of a prompt, exactly.

Section 2.5 of the paper scales sampling: n images of a prompt, a judge picks one. From N images judged once,
the expectation for every n up to N follows without sampling again, with no more variance than the N images
themselves have. It is the order-statistics form of the unbiased pass@k of Chen et al. (2021), equation 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["expected_best_of_n", "pass_at_n", "sizes_up_to"]

Array = NDArray[np.float64]


def sizes_up_to(largest: int) -> list[int]:
    """1, 2, 4, ... and `largest` itself."""
    sizes = [2**i for i in range(largest.bit_length()) if 2**i <= largest]
    return sizes if sizes[-1:] == [largest] else [*sizes, largest]


def expected_best_of_n(values: Sequence[float], scores: Sequence[float], n: int) -> float:
    """The expected value of the image with the highest score among n of a prompt's N images, drawn without
    order.

    Sorted by falling score, the image in place i (from 1) is the best of C(N - i, n - 1) of the C(N, n)
    choices. Among images of equal score one is chosen at random.

    Args:
        values: of the N images, such as 1.0 where it is correct.
        scores: the judge's, of the same images.
        n: 1 to N.

    Raises:
        ValueError: n is outside 1 to N, or a score is not a number.
    """
    value, score = np.asarray(values, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if value.shape != score.shape or value.ndim != 1 or np.isnan(score).any():
        raise ValueError("best of n needs one value and one score, a number, for each image")
    weights = _best_weights(len(value), n)
    # Equals are interchangeable: each of them has the mean of the value that they share.
    _, group = np.unique(-score, return_inverse=True)
    members = np.bincount(group)
    means = np.bincount(group, weights=value) / members
    return float(weights @ np.repeat(means, members))


def pass_at_n(correct: Sequence[bool] | Sequence[float], n: int) -> float:
    """The chance that at least one of n of a prompt's N images is correct: the score with a perfect judge."""
    right = [float(c) for c in correct]
    return expected_best_of_n(right, right, n)


def _best_weights(total: int, n: int) -> Array:
    """float64 [total]: the chance of each place, the highest score first, to be the best of n drawn."""
    if not 1 <= n <= total:
        raise ValueError(f"cannot choose {n} of {total} images")
    # C(N-i, n-1) / C(N, n) as a running product: the binomials themselves overflow at N = 2048.
    weights = np.zeros(total)
    weight = n / total
    for place in range(total - n + 1):
        weights[place] = weight
        weight *= (total - n - place) / (total - 1 - place) if place < total - 1 else 0.0
    return weights
