"""What a selection from n images gives on average over all choices of n among the N images of a prompt, exactly.

Section 2.5 of the paper scales sampling: n images of a prompt, a judge picks one. From N images judged once,
the expectation for every n up to N follows without sampling again, with no more variance than the N images
themselves have. It is the order-statistics form of the unbiased pass@k of Chen et al. (2021), equation 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import NDArray

__all__ = ["FirstHit", "expected_top_k", "first_hit", "sizes_up_to"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FirstHit:
    """What drawing in rounds until the first hit gives, on average over all orders of the images.

    Attributes:
        draws: images drawn.
        success: the chance of a hit under the cap.
        value: of the image with the highest score among those drawn.
    """

    draws: float
    success: float
    value: float


def sizes_up_to(largest: int, least: int = 1) -> list[int]:
    """1, 2, 4, ... and `largest` itself; `least` in place of the sizes below it."""
    sizes = [2**i for i in range(largest.bit_length()) if least < 2**i < largest]
    return list(dict.fromkeys([least, *sizes, largest]))


def expected_top_k(values: Sequence[float], scores: Sequence[float], n: int, k: int) -> float:
    """The expected mean value of the k images with the highest scores among n of a prompt's N images, drawn without
    order.

    Sorted by falling score, the image in place i (from 1) is among the best k of
    sum_{j<k} C(i - 1, j) C(N - i, n - 1 - j) of the C(N, n) choices. Among images of equal score they are chosen at
    random.

    Args:
        values: of the N images, such as 1.0 where it is correct.
        scores: the judge's, of the same images. A perfect judge's are the values: for k = 1, the chance that at least
            one of n is correct.
        n: 1 to N.
        k: 1 to n.

    Raises:
        ValueError: n is outside 1 to N, or k outside 1 to n, or a score is not a number.
    """
    value, _ = _in_order(values, scores)
    return float(_top_weights(len(value), n, k) @ value)


def first_hit(
    values: Sequence[float], scores: Sequence[float], hits: Sequence[bool], cap: int, size: int = 1
) -> FirstHit:
    """Drawing a prompt's images in rounds, until a round has a hit or the cap is reached, and taking the best by score.

    With m hits among N images, a round that begins after t images is drawn with the chance C(N - m, t) / C(N, t).

    Args:
        values, scores: as in `expected_top_k`.
        hits: whether the search stops at an image, such as a judge's yes. Hits have higher scores than all others.
        cap: 1 to N, images at most.
        size: images of a round; the last one is cut at the cap.

    Raises:
        ValueError: the cap is outside 1 to N, a round has no image, a score is not a number, or a hit has no higher
            score than an image that is none.
    """
    value, order = _in_order(values, scores)
    hit = np.asarray(hits, dtype=bool)[order]
    total, found = len(value), int(hit.sum())
    ordered = np.asarray(scores, dtype=np.float64)[order]
    if not hit[:found].all() or (0 < found < total and ordered[found - 1] == ordered[found]):
        raise ValueError("a hit needs a higher score than every image that is none")
    if not 1 <= cap <= total or size < 1:
        raise ValueError(f"cannot draw {cap} of {total} images in rounds of {size}")
    draws, gained, drawn, reached = 0.0, 0.0, 0, 1.0
    while drawn < cap and reached > 0:
        more = min(size, cap - drawn)
        draws += more * reached
        # No hit so far: all of them are among the images that are left.
        gained += reached * float(_top_weights(total - drawn, more, 1)[:found] @ value[:found])
        for place in range(drawn, drawn + more):
            reached *= (total - found - place) / (total - place)
        drawn += more
    if reached > 0:
        gained += reached * float(_top_weights(total - found, cap, 1) @ value[found:])
    return FirstHit(draws, 1 - reached, gained)


def _in_order(values: Sequence[float], scores: Sequence[float]) -> tuple[Array, NDArray[np.int64]]:
    """The values by falling score, and the places that they were in."""
    value, score = np.asarray(values, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if value.shape != score.shape or value.ndim != 1 or np.isnan(score).any():
        raise ValueError("a selection needs one value and one score, a number, for each image")
    # Equals are interchangeable: each of them has the mean of the value that they share.
    _, group = np.unique(-score, return_inverse=True)
    members = np.bincount(group)
    means = np.bincount(group, weights=value) / members
    return np.repeat(means, members), np.argsort(-score, kind="stable")


@lru_cache(maxsize=4096)
def _top_weights(total: int, n: int, k: int) -> Array:
    """float64 [total]: the share of each place, the highest score first, in the mean of the best k of n drawn."""
    if not 1 <= n <= total or not 1 <= k <= n:
        raise ValueError(
            f"cannot choose {n} of {total} images" if k == 1 else f"cannot keep {k} of {n} images"
        )
    if k == n:
        return np.full(total, 1 / total)
    # Whole numbers: the binomials overflow at N = 2048, and their quotients are rounded once, at the end.
    weights = [0] * total
    for better in range(k):
        # C(place, better) C(total - 1 - place, n - 1 - better), from one place to the next
        count = comb(total - 1 - better, n - 1 - better)
        for place in range(better, total - n + better + 1):
            weights[place] += count
            after, left = place + 1 - better, total - 1 - place
            count = count * (place + 1) * (left - (n - 1 - better)) // (after * left) if left else 0
    choices = comb(total, n) * k
    return np.array([weight / choices for weight in weights])
