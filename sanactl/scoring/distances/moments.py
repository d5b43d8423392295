"""Mean and covariance of features, summed image by image, and the Fréchet distance between two of them.

Source: Heusel et al. 2017, equation 6; Dowson and Landau 1982.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["GROUPS", "Gaussian", "Moments", "frechet_distance", "frechet_interval", "jackknife"]

Array = NDArray[np.float64]

# Parts of a set of images whose sums are kept apart, for intervals. A part of 2,048 features takes 34 MB.
GROUPS = 10
# The quantile 0.975 of Student's t with GROUPS - 1 degrees of freedom.
_T = 2.262157


@dataclass(frozen=True)
class Gaussian:
    """What the Fréchet distance compares.

    Attributes:
        mu: mean, float64 [D].
        sigma: covariance with the divisor N - 1, float64 [D, D].
    """

    mu: Array
    sigma: Array


class Moments:
    """Sums of features and of their products, float64, in `GROUPS` parts. Sums of two runs can be added.

    Args:
        width: D, number of features.
    """

    def __init__(self, width: int) -> None:
        self.count = np.zeros(GROUPS)
        self.sums = np.zeros((GROUPS, width))
        self.products = np.zeros((GROUPS, width, width))

    def add(self, features: NDArray[Any], groups: Sequence[int]) -> None:
        """Adds features [N, D] of images that belong to parts `groups` (N numbers)."""
        rows, of = np.asarray(features, dtype=np.float64), np.asarray(groups)
        for group in np.unique(of):
            part = rows[of == group]
            self.count[group] += len(part)
            self.sums[group] += part.sum(0)
            self.products[group] += part.T @ part

    def gaussian(self, *, without: int | None = None) -> Gaussian:
        """Of all images, or of those outside one part; there must be two or more."""
        n, sums, products = self.count.sum(), self.sums.sum(0), self.products.sum(0)
        if without is not None:
            n -= self.count[without]
            sums -= self.sums[without]
            products -= self.products[without]
        mu = sums / n
        sigma = (products - n * np.outer(mu, mu)) / (n - 1)
        return Gaussian(mu, (sigma + sigma.T) / 2)


def frechet_distance(a: Gaussian, b: Gaussian, root: Array | None = None) -> float:
    """|mu_a - mu_b|^2 + trace(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2), in float64.

    The matrix in the root is symmetric, so its eigenvalues are real and nothing is lost to an imaginary part, as with
    the root of S_a S_b.

    Args:
        root: S_a^1/2, if it is known.
    """
    outer = _root(a.sigma) if root is None else root
    inner = outer @ b.sigma @ outer
    values = np.linalg.eigvalsh((inner + inner.T) / 2)
    trace = float(np.trace(a.sigma) + np.trace(b.sigma) - 2 * np.sqrt(np.maximum(values, 0)).sum())
    return max(float(((a.mu - b.mu) ** 2).sum()) + trace, 0.0)


def frechet_interval(images: Moments, reference: Gaussian) -> tuple[float, list[float] | None]:
    """The distance of images from a reference, and its 95 % interval.

    The interval is what other images of the same kind and number would give, with the reference as it is: a
    delete-one-part jackknife (Efron and Stein 1981). It does not contain the distance of infinitely many images, which
    is smaller. None where a part is empty.
    """
    root = _root(reference.sigma)
    value = frechet_distance(reference, images.gaussian(), root)
    if images.count.min() < 1 or images.count.sum() - images.count.max() < 2:
        return value, None
    left_out = [frechet_distance(reference, images.gaussian(without=g), root) for g in range(GROUPS)]
    return value, jackknife(value, left_out)


def jackknife(value: float, left_out: Sequence[float], least: float | None = 0.0) -> list[float]:
    """[low, high] around a value, from the values without each of `GROUPS` parts; none is below `least`."""
    spread = np.asarray(left_out) - np.mean(left_out)
    reach = _T * float(np.sqrt((GROUPS - 1) / GROUPS * (spread**2).sum()))
    low = value - reach
    return [low if least is None else max(low, least), value + reach]


def _root(sigma: Array) -> Array:
    values, vectors = np.linalg.eigh(sigma)
    # Rounding makes eigenvalues of a singular matrix slightly negative.
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)
