"""The images of prompts as pools to choose from: what is right, in which order a judge prefers them, what they cost."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError
from sanactl.records.records import Record, dumps

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Costs", "Pool", "Pools", "by_prompt", "read_pools"]


@dataclass(frozen=True)
class Pool:
    """The images of one prompt.

    Attributes:
        tag: its task.
        name: the prompt's id and text.
        correct: of each image, 1.0 where it is right.
        scores: a judge's, higher is better; None where it has not judged them all.
        yes: whether the judge says yes to an image; None where that is not known.
    """

    tag: str
    name: tuple[str, str]
    correct: list[float]
    scores: list[float] | None
    yes: list[bool] | None


@dataclass(frozen=True)
class Costs:
    """Mean cost of one image.

    Attributes:
        flops: of drawing it; None where a record does not say.
        judge_flops: of judging it; None where that is not known.
        seconds, judge_seconds: the same in time; None where it was not measured.
    """

    flops: float | None = None
    judge_flops: float | None = None
    seconds: float | None = None
    judge_seconds: float | None = None

    def of(self, images: float, judged: float) -> Record:
        """{"images", "flops", "seconds"} of so many images of a prompt, some of them judged, as far as it is known."""
        found: Record = {"images": images}
        for name, draw, judge in (
            ("flops", self.flops, self.judge_flops),
            ("seconds", self.seconds, self.judge_seconds),
        ):
            if draw is not None and (judge is not None or not judged):
                found[name] = images * draw + judged * (judge or 0.0)
        return found


@dataclass(frozen=True)
class Pools:
    """The pools of all prompts.

    Attributes:
        pools: of each prompt, those of a task next to each other or not.
        costs: of an image.
        least: images of the prompt that has fewest.
    """

    pools: Sequence[Pool]
    costs: Costs

    @property
    def least(self) -> int:
        return min(len(pool.correct) for pool in self.pools)

    @property
    def tasks(self) -> list[str]:
        """Of each prompt."""
        return [pool.tag for pool in self.pools]

    @property
    def judged(self) -> bool:
        """Whether a judge has an order for all images."""
        return all(pool.scores is not None for pool in self.pools)

    @property
    def answered(self) -> bool:
        """Whether a judge said yes or no to all images, and prefers every yes to every no."""
        return self.judged and all(pool.yes is not None and _yes_first(pool) for pool in self.pools)

    def only(self, names: Collection[tuple[str, tuple[str, str]]]) -> Pools:
        """Those of these prompts (task and name), in the order of their names."""
        chosen = [pool for pool in self.pools if (pool.tag, pool.name) in names]
        return Pools(sorted(chosen, key=lambda pool: (pool.tag, pool.name)), self.costs)

    def digest(self) -> str:
        """A fingerprint of the prompts: scores of other prompts do not compare."""
        text = dumps({"prompts": sorted([pool.tag, *pool.name] for pool in self.pools)})
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16]

    def top(self, sizes: Sequence[int], k: int, *, oracle: bool = False) -> NDArray[np.float64]:
        """float64 [prompts, sizes]: the expected mean of the best k of n (`sanactl.scoring.best_of_n.expected_top_k`)."""
        from sanactl.scoring.best_of_n import expected_top_k

        return self._each(lambda p, n: expected_top_k(p.correct, _order(p, oracle), n, k), sizes)

    def first(self, caps: Sequence[int], size: int, *, oracle: bool = False) -> NDArray[np.float64]:
        """float64 [prompts, caps, 3]: draws, success and value of `sanactl.scoring.best_of_n.first_hit`.

        The search stops at a judge's yes, and the oracle's at an image that is right.
        """
        from sanactl.scoring.best_of_n import first_hit

        def found(pool: Pool, cap: int) -> tuple[float, float, float]:
            hits = [c > 0 for c in pool.correct] if oracle else pool.yes
            assert hits is not None
            result = first_hit(pool.correct, _order(pool, oracle), hits, cap, size)
            return result.draws, result.success, result.value

        return self._each(found, caps)

    def _each(self, function: Callable[[Pool, int], Any], sizes: Sequence[int]) -> NDArray[np.float64]:
        import numpy as np

        return np.array([[function(pool, n) for n in sizes] for pool in self.pools], dtype=np.float64)


def _order(pool: Pool, oracle: bool) -> list[float]:
    if oracle:
        return pool.correct
    assert pool.scores is not None
    return pool.scores


def _yes_first(pool: Pool) -> bool:
    assert pool.scores is not None and pool.yes is not None
    yes = [s for s, y in zip(pool.scores, pool.yes, strict=True) if y]
    no = [s for s, y in zip(pool.scores, pool.yes, strict=True) if not y]
    return not yes or not no or min(yes) > max(no)


def by_prompt(records: Iterable[Record]) -> list[list[Record]]:
    """The records of each prompt of each task, in the order of their first images."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        name = str(record.get("prompt_id", record.get("id")))
        groups.setdefault((record.get("tag"), name, record.get("prompt")), []).append(record)
    return list(groups.values())


def read_pools(records: Iterable[Record]) -> Pools:
    """Pools from image records with `correct`: all images that were sampled for their prompts.

    Raises:
        InputError: there are no records, or one has no verdict.
    """
    prompts = by_prompt(records)
    if not prompts:
        raise InputError("no image records to draw a scaling curve from")
    every = [r for images in prompts for r in images]
    for record in every:
        if not isinstance(record.get("correct"), bool):
            raise InputError(
                f"{record.get('path')}: no verdict in its record", hint="run sanactl eval geneval first"
            )
    return Pools(
        [_pool(images) for images in prompts], Costs(_mean(every, "flops"), _mean(every, "judge_flops"))
    )


def _pool(images: Sequence[Record]) -> Pool:
    first = images[0]
    answers = [r.get("verdict") for r in images]
    return Pool(
        str(first.get("tag")),
        (str(first.get("prompt_id", first.get("id"))), str(first.get("prompt"))),
        [float(r["correct"]) for r in images],
        _judge_scores(images),
        [a == "yes" for a in answers] if all(a in ("yes", "no") for a in answers) else None,
    )


def _judge_scores(images: Sequence[Record]) -> list[float] | None:
    """A judge's scores of a prompt's images, higher is better; None where it has not judged them all.

    A complete ranking (0 is best) is preferred: a score is rounded, so that very sure verdicts look equal.
    """
    ranks: list[Any] = [r.get("rank") for r in images]
    if all(type(rank) is int for rank in ranks) and sorted(ranks) == list(range(len(images))):
        return [-float(rank) for rank in ranks]
    scores: list[Any] = [r.get("judge_score") for r in images]
    if all(isinstance(s, int | float) and not isinstance(s, bool) and math.isfinite(s) for s in scores):
        return [float(s) for s in scores]
    return None


def _mean(records: Sequence[Record], field: str) -> float | None:
    """The mean of a field, None where a record does not have it."""
    values: list[Any] = [r.get(field) for r in records]
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v < math.inf for v in values):
        return None
    return math.fsum(values) / len(values)
