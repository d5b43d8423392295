"""The score at the end of `eval dpg`: all items, categories, with intervals over items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sanactl.errors import InputError
from sanactl.records.records import Record
from sanactl.records.scores import new_score
from sanactl.scoring.questions.dpg_rules import PROTOCOLS, ItemScore

__all__ = ["Part", "dpg_record", "estimates"]


@dataclass(frozen=True)
class Part:
    """What a mean is of.

    Attributes:
        sums: for each prompt, the sum of its values, each in [0, 1].
        counts: how many values that is.
        images: how many images a prompt has.
    """

    sums: list[float]
    counts: list[int]
    images: list[int]


def dpg_record(protocol: str, items: Mapping[str, tuple[ItemScore, int]], **about: Any) -> Record:
    """The score record.

    Args:
        protocol: a name of `PROTOCOLS`. Scores of the official one have a name of their own: both in one table would look
            as if they compared.
        items: the scores of each item, and how many images it has.
        about: further fields.

    Raises:
        InputError: there are no items.
    """
    if not items:
        raise InputError(
            "no image could be scored by the official rules", hint="--protocol fixed scores all of them"
        )
    overall = Part([s.value for s, _ in items.values()], [1] * len(items), [n for _, n in items.values()])
    broad, detailed = (
        _categories((getattr(score, kind), images) for score, images in items.values())
        for kind in ("broad", "detailed")
    )
    parts = {**broad, **{name: detailed[name] for name in sorted(detailed) if name not in broad}}
    value, ci = estimates({"": overall})[""]
    return new_score(
        "dpg" if protocol == "fixed" else f"dpg_{protocol}",
        value,
        ci=ci,
        tasks={
            name: {"value": found[0], "ci": found[1], "images": sum(parts[name].images)}
            for name, found in estimates(parts).items()
        },
        protocol=f"{protocol} rules: {PROTOCOLS[protocol]}",
        **about,
    )


def estimates(parts: Mapping[str, Part]) -> dict[str, tuple[float, list[float] | None]]:
    """The mean of each part and its 95 % interval over prompts, both times 100; no interval below five prompts."""
    import numpy as np

    from sanactl.scoring.intervals import mean_of_tasks

    if not parts:
        return {}
    _, found = mean_of_tasks(
        {name: np.array(p.sums, dtype=np.float64) for name, p in parts.items()},
        {name: np.array(p.counts, dtype=np.float64) for name, p in parts.items()},
        images={name: np.array(p.images, dtype=np.float64) for name, p in parts.items()},
    )
    results: dict[str, tuple[float, list[float] | None]] = {}
    for name, one in found.items():
        ci = None
        if one.low is not None and one.high is not None:
            ci = [_hundred(one.low[0]), _hundred(one.high[0])]
        results[name] = _hundred(one.value[0]), ci
    return results


def _hundred(value: float) -> float:
    """Times 100, to a ten-thousandth: beyond is the sums' rounding."""
    return round(100 * float(value), 4)


def _categories(items: Iterable[tuple[Sequence[tuple[str, float]], int]]) -> dict[str, Part]:
    """The values of each category: of all its questions, of those items that have one."""
    parts: dict[str, Part] = {}
    for values, images in items:
        own: dict[str, list[float]] = {}
        for name, value in values:
            own.setdefault(name, []).append(value)
        for name, found in own.items():
            part = parts.setdefault(name, Part([], [], []))
            part.sums.append(sum(found))
            part.counts.append(len(found))
            part.images.append(images)
    return parts
