"""Prompts of the built-in world, drawn at random from one of its splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from sanactl.prompts.draw import Space, draw_prompts
from sanactl.prompts.exclusion import Excluded
from sanactl.records.records import Record
from sanactl.shapes.prompts import HELD_OUT_BY_PHRASE, all_prompts, sample_prompt
from sanactl.shapes.vocabulary import TASKS

__all__ = ["shapes_prompts"]


def shapes_prompts(
    split: str,
    count: int,
    *,
    seed: int,
    excluded: Excluded,
    weights: Mapping[str, float] | None = None,
    tell: Callable[[str], None],
) -> list[Record]:
    """Prompts of different words, each with an `id`.

    Args:
        split: "train", "eval" or "calib".
        count: how many.
        seed: of the draws.
        excluded: what must not be drawn, too: by meaning, in single_object, counting and colors by words, as the splits.
        weights: of the tasks; None for equal ones.
        tell: gets a line where a task has too few prompts.

    Raises:
        UsageError: there are not so many.
    """
    drawn = None if weights or excluded else _drawn_in_turn(split, count, seed)
    if drawn is None:
        by_task = {tag: list(all_prompts(split, tag)) for tag in TASKS if not weights or weights.get(tag)}
        drawn = draw_prompts(
            [Space(tag, len(there), partial(_pick, there)) for tag, there in by_task.items()],
            count,
            weights=weights or dict.fromkeys(TASKS, 1.0),
            seed=seed,
            is_excluded=excluded.by_words(HELD_OUT_BY_PHRASE),
            tell=tell,
        )
    return [{"id": f"{split}-{i:05d}", **record} for i, record in enumerate(drawn)]


def _pick(records: list[Record], number: int, turned: bool) -> Record:
    return records[number]


def _drawn_in_turn(split: str, count: int, seed: int) -> list[Record] | None:
    """The prompts that the recipes of the shipped models drew: a task after the other, until the words are new.

    None after many repeats, where a task has too few.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    drawn: dict[str, Record] = {}
    for attempt in range(200 * count):
        record = sample_prompt(rng, TASKS[attempt % len(TASKS)], split)
        drawn.setdefault(record["prompt"], record)
        if len(drawn) == count:
            return list(drawn.values())
    return None
