"""How often a judge says something else when it is asked again: the same settings, another dtype, another dialogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from sanactl.judging.audit.figures import Figure, as_figures
from sanactl.judging.audit.gather import Image, Opinion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["REPEATS", "flip_rates"]

# Verdicts with the same settings: repetitions, other batch sizes, other machines.
REPEATS = "repeats"
_MOST = 32  # opinions of an image; its pairs grow with the square


def flip_rates(opinions: Mapping[Image, Sequence[Opinion]]) -> dict[str, tuple[Figure, int]]:
    """For each difference of settings the share of pairs of verdicts on one image that disagree, and how many images.

    An image counts once, by the mean over its pairs; the interval is over prompts.

    Args:
        opinions: of one judge.
    """
    import numpy as np

    from sanactl.scoring.intervals import bootstrap

    prompts: dict[str, int] = {}
    found: dict[str, list[tuple[int, float]]] = {}
    for (prompt, _), several in opinions.items():
        place = prompts.setdefault(prompt, len(prompts))
        flips: dict[str, list[bool]] = {}
        for one, other in combinations(several[:_MOST], 2):
            kind = difference(one.settings, other.settings)
            flips.setdefault(kind, []).append(one.verdict.verdict != other.verdict.verdict)
        for kind, disagreed in flips.items():
            found.setdefault(kind, []).append((place, sum(disagreed) / len(disagreed)))
    rates = {}
    for kind, shares in sorted(found.items()):
        own, groups = np.unique([place for place, _ in shares], return_inverse=True)
        sums = np.bincount(groups, [share for _, share in shares]).astype(np.float64)
        counts = np.bincount(groups).astype(np.float64)

        def rate(weights: Array, sums: Array = sums, counts: Array = counts) -> Array:
            return np.array([(weights @ sums) / (weights @ counts)])

        estimate = bootstrap(rate, len(own))
        (rates[kind],) = [(figure, len(shares)) for figure in as_figures(estimate)]
    return rates


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What sets two settings apart: "dialogue", "dtype", "dialogue, dtype", "weights"; `REPEATS` if nothing does."""
    apart = [name for name in ("dialogue", "dtype") if one.get(name) != other.get(name)]
    # The digest covers the dialogue, too.
    if "dialogue" not in apart and one.get("digest") != other.get("digest"):
        apart.append("weights or options")
    if one.get("judges") != other.get("judges"):
        apart.append("judges")
    return ", ".join(apart) or REPEATS
