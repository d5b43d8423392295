"""Maximum mean discrepancies between features: KID with a polynomial kernel, CMMD with a Gaussian one.

Source: Binkowski et al. 2018 (KID); Jayasumana et al. 2024 (CMMD); Gretton et al. 2012 (both estimates).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanactl.scoring.distances.moments import GROUPS, jackknife

__all__ = ["Discrepancy", "cmmd", "kid", "kid_of_subsets"]

Array = NDArray[Any]
Kernel = Callable[[Array, Array], NDArray[np.float64]]

# Rows of features that are compared with all others at once: a block of 1,000 x 30,000 products takes 240 MB.
_ROWS = 1000
SIGMA, SCALE = 10.0, 1000.0  # CMMD's


@dataclass(frozen=True)
class Discrepancy:
    """An estimate of MMD^2 and its 95 % interval; None where a part of the images is empty."""

    value: float
    ci: list[float] | None


def polynomial(x: Array, y: Array) -> NDArray[np.float64]:
    """(x y / D + 1)^3, float64 [N, M]."""
    products = x.astype(np.float64) @ y.astype(np.float64).T / x.shape[1] + 1
    return np.asarray(products**3)


def gaussian(x: Array, y: Array) -> NDArray[np.float64]:
    """exp(-|x - y|^2 / (2 sigma^2)), float64 [N, M]."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    distances = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
    return np.asarray(np.exp(-distances / (2 * SIGMA**2)))


def kid(images: Array, reference: Array, groups: Sequence[int]) -> Discrepancy:
    """The unbiased estimate of all images at once. It can be below 0.

    Args:
        images: features [N, D], N of 2 or more.
        reference: features [M, D].
        groups: N numbers below `GROUPS`, the part of each image, for the interval.
    """
    return _mmd(images, reference, groups, polynomial, unbiased=True)


def cmmd(images: Array, reference: Array, groups: Sequence[int]) -> Discrepancy:
    """1,000 times the biased (minimum-variance) estimate, as the published code gives; arguments as of `kid`."""
    found = _mmd(images, reference, groups, gaussian, unbiased=False)
    ci = None if found.ci is None else [SCALE * max(end, 0.0) for end in found.ci]
    return Discrepancy(SCALE * max(found.value, 0.0), ci)


def kid_of_subsets(
    images: Array, reference: Array, *, subsets: int = 100, size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """(mean, standard deviation) of the unbiased estimates of random subsets, as torch-fidelity draws them.

    Args:
        images, reference: features [N, D] and [M, D], N and M of `size` or more.
        subsets: how many.
        size: images of each set in a subset.
        seed: of NumPy's RandomState; torch-fidelity's default is 2020, and it takes the images before the reference.
    """
    rng = np.random.RandomState(seed)
    found = []
    for _ in range(subsets):
        x = images[rng.choice(len(images), size, replace=False)]
        y = reference[rng.choice(len(reference), size, replace=False)]
        xx, yy, xy = polynomial(x, x), polynomial(y, y), polynomial(x, y)
        within = xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)
        found.append(within / (size * (size - 1)) - 2 * xy.mean())
    return float(np.mean(found)), float(np.std(found))


def _mmd(
    images: Array, reference: Array, groups: Sequence[int], kernel: Kernel, *, unbiased: bool
) -> Discrepancy:
    """MMD^2 by blocks of rows, and its jackknife over parts of the images with the reference as it is."""
    of = np.eye(GROUPS)[np.asarray(groups)]  # [N, GROUPS]
    count = of.sum(0)
    among, across = np.zeros((GROUPS, GROUPS)), np.zeros(GROUPS)
    diagonal, reference_sum, reference_diagonal = np.zeros(GROUPS), 0.0, 0.0
    for start in range(0, len(images), _ROWS):
        rows = slice(start, start + _ROWS)
        block = kernel(images[rows], images)
        among += of[rows].T @ block @ of
        diagonal += of[rows].T @ np.diagonal(block, offset=start)
        across += of[rows].T @ kernel(images[rows], reference).sum(1)
    for start in range(0, len(reference), _ROWS):
        block = kernel(reference[start : start + _ROWS], reference)
        reference_sum += float(block.sum())
        reference_diagonal += float(np.trace(block, offset=start))
    m = len(reference)
    if unbiased:
        within_reference = (reference_sum - reference_diagonal) / (m * (m - 1))
    else:
        within_reference = reference_sum / m**2

    def estimate(kept: Sequence[int]) -> float:
        n = count[kept].sum()
        total = among[np.ix_(kept, kept)].sum()
        within = (total - diagonal[kept].sum()) / (n * (n - 1)) if unbiased else total / n**2
        return float(within + within_reference - 2 * across[kept].sum() / (n * m))

    value = estimate(range(GROUPS))
    if count.min() < 1 or count.sum() - count.max() < 2:
        return Discrepancy(value, None)
    left_out = [estimate([g for g in range(GROUPS) if g != without]) for without in range(GROUPS)]
    return Discrepancy(value, jackknife(value, left_out, None))
