"""The settings of the training of the built-in world's judge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sanactl.errors import UsageError
from sanactl.files.content import files_digest

__all__ = ["JudgeTraining", "builtin_training"]

WARMUP_RATIO = 0.03  # the paper's, appendix B
# Raised whenever the same settings give other steps than before: saved states of the old ones are not these.
_ARITHMETIC = 3


@dataclass(frozen=True)
class JudgeTraining:
    """The settings of `train_judge`.

    Attributes:
        start: a judge to go on from, in place of a new one.
        warmup_steps: steps in which the vision tower alone learns what is where.
        steps: steps in which the whole model learns to answer questions.
        batch_size: images a step.
        questions: questions an image; half of them are right where that is possible.
        learning_rate: the largest; it rises at the beginning of both parts and falls to 0 at their ends.
        pool_size: rendered pictures to draw from, made anew at the start (about 4 ms each).
        seed: of the new model, the pictures and their order.
        save_every: steps between saved states.
        sizes: of a new model, see `judge_config`.
    """

    start: Path | None = None
    warmup_steps: int = 2000
    steps: int = 4000
    batch_size: int = 32
    questions: int = 8
    learning_rate: float = 2e-3
    pool_size: int = 24_000
    seed: int = 0
    save_every: int = 200
    sizes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises UsageError if a number makes no sense."""
        counts = (self.batch_size, self.questions, self.pool_size, self.save_every)
        if min(counts) < 1 or min(self.warmup_steps, self.steps) < 0 or not 0 < self.learning_rate < math.inf:
            raise UsageError("sizes, steps and the learning rate of train-judge must be positive")

    def identity(self, images: str | None) -> dict[str, Any]:
        """Everything that the steps depend on; `images` is the digest of the labelled images, None without them."""
        return {
            "warmup": self.warmup_steps, "steps": self.steps, "batch": self.batch_size, "questions": self.questions,
            "lr": self.learning_rate, "pool": self.pool_size, "seed": self.seed, "sizes": dict(self.sizes),
            "start": self.start and _content(self.start), "images": images, "arithmetic": _ARITHMETIC,
        }  # fmt: skip

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        warm = step < self.warmup_steps
        at, length = (step, self.warmup_steps) if warm else (step - self.warmup_steps, self.steps)
        return self.learning_rate * _schedule(at, length)


def builtin_training(options: Mapping[str, Any]) -> JudgeTraining:
    """The settings from options of `train-judge`, by their names there; None counts as not given.

    Raises:
        UsageError: a number makes no sense.
    """
    names = ("start", "warmup_steps", "steps", "batch_size", "lr", "pool_size", "save_every", "seed")
    given = {name: options[name] for name in names if options[name] is not None}
    return JudgeTraining(**{"learning_rate" if name == "lr" else name: v for name, v in given.items()})


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up to 1, then a cosine to 0 at the last step."""
    warm = max(1, min(200, round(WARMUP_RATIO * steps)))
    if step + 1 < warm:
        return (step + 1) / warm
    return 0.5 + 0.5 * math.cos(math.pi * (step + 1 - warm) / max(steps - warm, 1))


def _content(folder: Path) -> str:
    """What the files of a judge to start from hold, wherever it lies."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return files_digest(files, "\n".join(path.name for path in files))
