"""Intervals of differences between scores that were measured on the same prompts (the paired bootstrap).

Prompts are drawn with replacement within each task, the same draw for all quantities, so that what is common to them
(hard and easy prompts) leaves their difference. Efron and Tibshirani 1993, chapter 8; percentile intervals.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sanactl.scoring.intervals import FEWEST

__all__ = ["PairedBootstrap"]

Array = NDArray[np.float64]
RESAMPLES = 1000


class PairedBootstrap:
    """Resamples of one set of prompts.

    Args:
        tasks: for each prompt, its task. A score is the mean of the tasks' means.
        seed: of the resamples.
    """

    def __init__(self, tasks: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        names = list(dict.fromkeys(tasks))
        kinds = np.array([names.index(task) for task in tasks])
        self._enough = len(tasks) >= FEWEST
        self._mean = np.zeros(len(tasks))
        self._weights = np.zeros((resamples, len(tasks)))
        for kind in range(len(names)):
            places = np.flatnonzero(kinds == kind)
            share = 1 / (len(names) * len(places))
            self._mean[places] = share
            draws = rng.multinomial(len(places), np.full(len(places), 1 / len(places)), size=resamples)
            # Draws from m prompts vary by (m - 1) / m of what prompts vary by; one prompt of a task tells nothing.
            self._enough &= len(places) > 1
            wider = (len(places) / max(len(places) - 1, 1)) ** 0.5
            self._weights[:, places] = (1 + (draws - 1) * wider) * share

    def means(self, values: Array) -> Array:
        """float64 [K]: the mean over tasks of the means over prompts, of values [prompts, K]."""
        found: Array = self._mean @ values
        return found

    def interval(self, values: Array, *, level: float = 0.95) -> Array | None:
        """float64 [K, 2]: low and high of the means of values [prompts, K], such as differences of two scores.

        None for fewer than `FEWEST` prompts, or where a task has one prompt.
        """
        if not self._enough:
            return None
        tail = (1 - level) / 2
        found: Array = np.quantile(self._weights @ values, [tail, 1 - tail], axis=0).T
        return found
