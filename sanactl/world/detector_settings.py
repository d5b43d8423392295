"""The settings of the trainings of the built-in world's Mask2Former and of its CLIP."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sanactl.errors import UsageError

__all__ = ["DetectorTraining"]

# Raised whenever the same settings give other steps than before: saved states of the old ones are not these.
_ARITHMETIC = 2


@dataclass(frozen=True)
class DetectorTraining:
    """The settings of `train_detector`.

    Attributes:
        start: a detector to go on from, in place of a new one.
        steps: updates of the weights.
        batch_size: pictures a step.
        learning_rate: the largest; it rises at the beginning and falls to 0 at the end.
        pool_size: rendered pictures to draw from, made anew at the start (about 8 ms each).
        seed: of the new model, the pictures and their order.
        save_every: steps between saved states.
        sizes: of a new model, see `detector_config`.
    """

    start: Path | None = None
    steps: int = 4000
    batch_size: int = 16
    learning_rate: float = 1.5e-3
    pool_size: int = 12_000
    seed: int = 0
    save_every: int = 200
    sizes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises UsageError if a number makes no sense."""
        check_numbers(self.steps, self.batch_size, self.pool_size, self.save_every, rate=self.learning_rate)

    def identity(self, start: str | None, pictures: str) -> dict[str, Any]:
        """Everything that the steps depend on: of the model to start from, and of all pictures, their digests."""
        return {
            "steps": self.steps, "batch": self.batch_size, "lr": self.learning_rate, "seed": self.seed,
            "sizes": dict(self.sizes), "start": start, "pictures": pictures, "arithmetic": _ARITHMETIC,
        }  # fmt: skip

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.learning_rate * schedule(step, self.steps)

    def none_weight(self, step: int) -> float:
        """The weight of queries that are no object: small until the others are good; whole at the end, which makes
        the probabilities true."""
        return 1.0 if self.start is not None else 0.1 + 0.9 * step / self.steps

    def near_weight(self, step: int) -> float:
        """How much an object's distance to a query's place counts in the assignment: little once places are learned."""
        return 0.2 if self.start is not None else max(0.2, 2.0 - 4.0 * step / self.steps)


def check_numbers(*counts: int, rate: float) -> None:
    """Raises UsageError unless all are positive."""
    if min(counts) < 1 or not 0 < rate < math.inf:
        raise UsageError("sizes, steps and the learning rate must be positive")


def schedule(step: int, steps: int) -> float:
    """Linear warm-up to 1 in the first twentieth (at most 200 steps), then a cosine to 0 at the last step."""
    warm = max(1, min(200, steps // 20))
    if step + 1 < warm:
        return (step + 1) / warm
    return 0.5 + 0.5 * math.cos(math.pi * (step + 1 - warm) / max(steps - warm, 1))
