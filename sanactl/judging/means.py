"""Means of probabilities that are given as logarithms."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["log_mean"]


def log_mean(logs: Sequence[float]) -> float:
    """log of the mean of exp(logs), exact where each is very small."""
    largest = max(logs)
    return largest + math.log(math.fsum(math.exp(x - largest) for x in logs) / len(logs))
