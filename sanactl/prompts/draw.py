"""Drawing prompts at random from the prompts of several tasks, in proportion to the tasks' weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sanactl.errors import InputError, UsageError
from sanactl.records.prompts import MAX_PROMPTS
from sanactl.records.records import Record

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Space", "draw_prompts", "parse_weights"]


@dataclass(frozen=True)
class Space:
    """All prompts of a task.

    Attributes:
        tag: the task.
        size: how many there are.
        make: (number, turned) -> the record of a number from 0 to `size` - 1. With `turned` it says the same in the
            other order, where it has one.
    """

    tag: str
    size: int
    make: Callable[[int, bool], Record]


def parse_weights(text: str, tags: Sequence[str]) -> dict[str, float]:
    """The weights of tasks from "TASK:W,TASK:W"; a task that is not named has none.

    Raises:
        UsageError: it is of another form, names a task that is not there or twice, or no weight is above 0.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        tag, _, value = (piece.strip() for piece in part.partition(":"))
        try:
            weight = float(value)
        except ValueError:
            weight = math.nan
        if tag not in tags:
            raise UsageError(f"--weights: {tag[:40]!r} is none of {', '.join(tags)}")
        if not 0 <= weight < math.inf:
            raise UsageError(
                f"--weights: {part.strip()[:60]!r} is not TASK:WEIGHT, with a weight of 0 or more",
                hint=f"--weights {tags[0]}:1,{tags[1]}:2",
            )
        if tag in weights:
            raise UsageError(f"--weights names {tag} twice")
        weights[tag] = weight
    if not 0 < sum(weights.values()) < math.inf:
        raise UsageError(
            "--weights: no weight is above 0" if not any(weights.values()) else "--weights are too large"
        )
    return weights


def draw_prompts(
    spaces: Sequence[Space],
    count: int,
    *,
    weights: Mapping[str, float],
    seed: int,
    is_excluded: Callable[[Record], bool],
    tell: Callable[[str], None],
) -> list[Record]:
    """`count` different prompts in random order.

    A task gives its share by weight. What it lacks is given by the others, and `tell` gets a line about it.

    Args:
        spaces: the tasks; those without a weight give none.
        weights: of tasks, in any unit.
        seed: of the draws. Each task draws by itself, so that other weights draw the same prompts of it first.
        is_excluded: whether a record must not be drawn.

    Raises:
        UsageError: the tasks with a weight have too few prompts.
        InputError: `count` is more than a file of prompts may have.
    """
    import numpy as np

    if count > MAX_PROMPTS:
        raise InputError(f"{count:,} prompts: a file of prompts has at most {MAX_PROMPTS:,}")
    wanted = [s for s in spaces if weights.get(s.tag, 0) > 0]
    streams = {
        s.tag: _stream(s, np.random.default_rng([seed, number]), is_excluded)
        for number, s in enumerate(spaces)
        if s in wanted
    }
    drawn: dict[str, list[Record]] = {tag: [] for tag in streams}
    open_tags = [*streams] if sum(s.size for s in wanted) >= count else []
    used_up: list[str] = []
    while open_tags and (missing := count - sum(map(len, drawn.values()))):
        for tag, share in zip(open_tags, _shares(missing, [weights[t] for t in open_tags]), strict=True):
            before = len(drawn[tag])
            drawn[tag] += itertools.islice(streams[tag], share)
            if len(drawn[tag]) - before < share:
                used_up.append(tag)
        open_tags = [tag for tag in open_tags if tag not in used_up]
    there = sum(map(len, drawn.values()))
    if there < count:
        names = _and([*streams])
        fault = (
            f"all prompts of {names} are excluded"
            if used_up and not there
            else f"{names} {'has' if len(streams) == 1 else 'have'}"
            f" {f'{there:,} not excluded' if used_up else f'{sum(s.size for s in wanted):,} in all'}"
        )
        raise UsageError(
            f"{count:,} prompts are wanted, but {fault}",
            hint="ask for fewer (-n)"
            + (", or give other tasks a weight" if len(wanted) < len(spaces) else ""),
        )
    for tag in used_up:
        some = f"{tag} has only {len(drawn[tag]):,} that are not excluded"
        tell(f"{some if drawn[tag] else f'all prompts of {tag} are excluded'}; other tasks give the rest")
    records = [record for tag in drawn for record in drawn[tag]]
    order = np.random.default_rng([seed, len(spaces)]).permutation(len(records))
    return [records[i] for i in order]


def _stream(
    space: Space, rng: np.random.Generator, is_excluded: Callable[[Record], bool]
) -> Iterator[Record]:
    """The task's prompts that are not excluded, each once, in random order and turned at random."""
    numbers, turned = rng.permutation(space.size).tolist(), rng.integers(2, size=space.size).tolist()
    records = (space.make(number, bool(turn)) for number, turn in zip(numbers, turned, strict=True))
    return (record for record in records if not is_excluded(record))


def _shares(count: int, weights: Sequence[float]) -> list[int]:
    """`count` divided in proportion to weights; what is left over goes to the largest remainders."""
    whole = sum(weights)
    exact = [count * (w / whole) for w in weights]
    shares = [int(x) for x in exact]
    by_rest = sorted(range(len(weights)), key=lambda i: shares[i] - exact[i])
    for i in by_rest[: count - sum(shares)]:
        shares[i] += 1
    return shares


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
