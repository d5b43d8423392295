"""Prompts of GenEval's grammar to train on: none means what a prompt of the benchmark means."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from sanactl.prompts.draw import draw_prompts
from sanactl.prompts.exclusion import Excluded
from sanactl.prompts.geneval.grammar import geneval_spaces
from sanactl.prompts.geneval.vocabulary import TASKS
from sanactl.records.records import Record

__all__ = ["PAPER_COUNT", "TRAIN_WEIGHTS", "train_prompts"]

# The prompts of SANA-1.5's fine-tuning set (section 3.3).
PAPER_COUNT = 18_240
# Equal shares; of many prompts most are of pairs, since counting and colours have few. No single objects: the benchmark
# has all of them.
TRAIN_WEIGHTS = {tag: float(tag != "single_object") for tag in TASKS}


def train_prompts(
    count: int,
    *,
    seed: int,
    excluded: Excluded,
    weights: Mapping[str, float] | None = None,
    tell: Callable[[str], None],
) -> list[Record]:
    """Different prompts by meaning, each with an `id`, GenEval's `tag` and clauses, and correct words.

    The `id` is a digest of the words, so that it is the same in every file.

    Args:
        count: how many.
        seed: of the draws.
        excluded: what must not be drawn.
        weights: of the tasks; None for `TRAIN_WEIGHTS`.
        tell: gets a line where a task has too few prompts.

    Raises:
        UsageError: there are not so many.
    """
    drawn = draw_prompts(
        geneval_spaces(),
        count,
        weights=TRAIN_WEIGHTS if weights is None else weights,
        seed=seed,
        is_excluded=excluded.means_one,
        tell=tell,
    )
    return [{"id": f"geneval-{_digest(record['prompt'])}", **record} for record in drawn]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
