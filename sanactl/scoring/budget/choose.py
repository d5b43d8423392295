"""The best choice for a budget: the best expected score, and the Pareto front of score and cost (section 2.5, figures 3 and 8)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError
from sanactl.files.human import human_count, human_flops
from sanactl.records.records import Record
from sanactl.records.scores import new_score
from sanactl.scoring.budget.setups import Setup
from sanactl.scoring.intervals import FEWEST

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["AXES", "Offer", "choose", "offers_of"]

AXES = {"images": "images", "flops": "FLOPs", "seconds": "seconds"}
MOST_SIZES = 64  # up to so many images every number of them is tried; beyond, powers of two
FOLDS = 5


@dataclass(frozen=True)
class Offer:
    """A setup with a number of images of each prompt.

    Attributes:
        setup: checkpoint, steps and judge.
        rule: "single", "4 images", "best-of-8 by NAME", "best 4 of 16 by NAME" or "first yes of 16 by NAME".
        n: images of a prompt at most.
        value, ci: the expected score, and its 95 % interval.
        cost: of a prompt.
        values: float64 [prompts], the expected score of each; None where the images are not known.
    """

    setup: Setup
    rule: str
    n: int
    value: float
    ci: Any
    cost: Record
    values: NDArray[np.float64] | None = None

    def __str__(self) -> str:
        blocks = f" ({self.setup.blocks} blocks)" if self.setup.blocks else ""
        steps = self.setup.about.get("steps")
        name = f"{self.setup.about.get('checkpoint') or 'a checkpoint'}{blocks}{f', {steps} steps' if steps else ''}"
        return f"{name}, {'one image' if self.rule == 'single' else self.rule.replace('-of-', ' of ')}"


def offers_of(setup: Setup, *, top: int = 1, round: int | None = None) -> list[Offer]:
    """All that a setup offers: one image, or the best of n by its judge; no offer needs the ground truth.

    Args:
        top: how many images are kept.
        round: also offers of a search that draws so many at a time until the judge says yes.
    """
    return list(_of_scores(setup) if setup.pools is None else _of_pools(setup, top, round))


def _of_pools(setup: Setup, top: int, round: int | None) -> Iterator[Offer]:
    from sanactl.scoring.best_of_n import sizes_up_to
    from sanactl.scoring.geneval.scaling import points_of

    pools = setup.pools
    assert pools is not None
    if pools.least < top:
        return
    every = list(range(top, pools.least + 1))
    sizes = every if len(every) <= MOST_SIZES else sizes_up_to(pools.least, top)
    sizes = sizes if pools.judged else [top]
    values = pools.top(sizes, top, oracle=not pools.judged)
    costs = [pools.costs.of(n, 0 if n == top else n) for n in sizes]
    for i, point in enumerate(points_of(pools, sizes, values, costs)):
        yield _offer(setup, _rule(setup, sizes[i], top), point, values[:, i])
    if round is not None and pools.answered and top == 1:
        found = pools.first(sizes[1:], round)
        draws = found[:, :, 0].mean(axis=0)
        costs = [pools.costs.of(float(d), float(d)) for d in draws]
        for i, point in enumerate(points_of(pools, sizes[1:], found[:, :, 2], costs)):
            yield _offer(setup, f"first yes of {point['at']}{_by(setup)}", point, found[:, i, 2])


def _of_scores(setup: Setup) -> Iterator[Offer]:
    for record in setup.scores:
        top = int(record.get("top") or 1)
        judged, alone = record["curves"].get("judge"), record["curves"].get("oracle") or []
        points = judged if judged else alone[:1] if record["metric"] == "scaling" else []
        for point in points:
            if not all(isinstance(point.get(f), int | float) for f in ("at", "value")):
                continue
            n = int(point["at"])
            rule = _rule(setup, n, top)
            if record["metric"] == "first_hit":
                rule = f"first yes of {n}{_by(setup)}"
            yield _offer(setup, rule, point)


def _offer(setup: Setup, rule: str, point: Record, values: NDArray[np.float64] | None = None) -> Offer:
    cost = {k: v for k, v in (point.get("cost") or {}).items() if v is not None}
    return Offer(setup, rule, int(point["at"]), float(point["value"]), point.get("ci"), cost, values)


def _by(setup: Setup) -> str:
    return f" by {setup.about['judge']}" if setup.about.get("judge") else ""


def _rule(setup: Setup, n: int, top: int) -> str:
    if n == top:
        return "single" if top == 1 else f"{top} images"
    return (f"best-of-{n}" if top == 1 else f"best {top} of {n}") + _by(setup)


def choose(offers: Sequence[Offer], axis: str, budget: float) -> list[Record]:
    """The Pareto front as score records, cheapest first, the choice among them.

    Args:
        offers: of setups on the same prompts.
        axis: "images", "flops" or "seconds".
        budget: of a prompt.

    Returns:
        score records of the metric `budget`. The one that is chosen has the best score within the budget. It has `held_out`,
        the mean score where each fifth of the prompts gets the choice of the other four, and `runner_up`, the
        best of another setup within the budget, with the difference and its interval (paired bootstrap over prompts).

    Raises:
        InputError: no offer has this cost, or none is within the budget.
    """
    priced = [o for o in offers if o.cost.get(axis) is not None]
    if not priced:
        names = ", ".join(dict.fromkeys(str(o.setup) for o in offers))
        hint = {
            "flops": "sample and judge again: image records of this version have flops and judge_flops",
            "seconds": "run sample and judge in this folder, or give --speed in FLOPs a second",
        }
        raise InputError(f"no {AXES[axis]} are known of {names or 'any setup'}", hint=hint.get(axis))
    best = _best(priced, axis, budget, [o.value for o in priced])
    if best is None:
        cheapest = min(priced, key=lambda o: o.cost[axis])
        raise InputError(
            f"nothing fits into {_said(budget, axis)} a prompt: the cheapest is {cheapest} with"
            f" {_said(cheapest.cost[axis], axis)}",
            hint="give a larger budget, or score fewer steps or a smaller checkpoint",
        )
    more = {**_held_out(priced, axis, budget), **_runner_up(priced, axis, budget, priced[best])}
    return [
        _record(offer, axis, budget, offer is priced[best], more if offer is priced[best] else {})
        for offer in _front(priced, axis)
    ]


def _said(amount: float, axis: str) -> str:
    return human_flops(amount) if axis == "flops" else f"{human_count(amount)} {AXES[axis]}"


def _affordable(offer: Offer, axis: str, budget: float) -> bool:
    return bool(offer.cost[axis] <= budget * (1 + 1e-9))


def _best(offers: Sequence[Offer], axis: str, budget: float, values: Sequence[float]) -> int | None:
    """The place of the best value within the budget; of equals, the cheapest."""
    places = [i for i, o in enumerate(offers) if _affordable(o, axis, budget)]
    return max(places, key=lambda i: (values[i], -offers[i].cost[axis]), default=None)


def _front(offers: Sequence[Offer], axis: str) -> list[Offer]:
    """Offers that no other beats at the same or a lower cost."""
    front: list[Offer] = []
    for offer in sorted(offers, key=lambda o: (o.cost[axis], -o.value)):
        if not front or offer.value > front[-1].value:
            front.append(offer)
    return front


def _held_out(offers: Sequence[Offer], axis: str, budget: float) -> Record:
    """The score of the rule "take the best" on prompts that it has not seen; {} where prompts are not known or few."""
    import numpy as np

    from sanactl.scoring.bootstrap import PairedBootstrap

    known = [o for o in offers if o.values is not None]
    if len(known) < len(offers):
        return {}
    first = known[0].setup.pools
    assert first is not None
    tasks = first.tasks
    if len(tasks) < max(FEWEST, FOLDS):
        return {}
    table = np.stack([o.values for o in known if o.values is not None], axis=1)
    fold = np.array([tasks[:i].count(task) % FOLDS for i, task in enumerate(tasks)])
    given = np.full(len(tasks), math.nan)
    for number in range(FOLDS):
        held, rest = fold == number, np.flatnonzero(fold != number)
        if not held.any() or not len(rest):
            continue
        means = PairedBootstrap([tasks[i] for i in rest], resamples=1).means(table[rest])
        place = _best(known, axis, budget, means.tolist())
        assert place is not None
        given[held] = table[held, place]
    if np.isnan(given).any():
        return {}
    mean = PairedBootstrap(tasks, resamples=1).means(given[:, None])
    return {"held_out": round(float(mean[0]), 6)}


def _runner_up(offers: Sequence[Offer], axis: str, budget: float, best: Offer) -> Record:
    """The best offer of another setup within the budget, and how far the choice is above it."""
    from sanactl.scoring.bootstrap import PairedBootstrap

    others = [o for o in offers if o.setup is not best.setup]
    place = _best(others, axis, budget, [o.value for o in others])
    if place is None:
        return {}
    other = others[place]
    found: Record = {**_facts(other), "value": other.value, "difference": round(best.value - other.value, 6)}
    pools = best.setup.pools
    if pools is not None and best.values is not None and other.values is not None:
        reach = PairedBootstrap(pools.tasks).interval((best.values - other.values)[:, None])
        found["ci"] = None if reach is None else [round(float(end), 6) for end in reach[0]]
    return {"runner_up": found}


def _facts(offer: Offer) -> Record:
    blocks = {} if offer.setup.blocks is None else {"blocks": offer.setup.blocks}
    return {**offer.setup.about, **blocks, "selection": offer.rule, "n": offer.n}


def _record(offer: Offer, axis: str, budget: float, chosen: bool, more: Record) -> Record:
    setup = offer.setup
    count = len(setup.pools.pools) if setup.pools is not None else setup.scores[0].get("prompts")
    return new_score(
        "budget",
        offer.value,
        ci=offer.ci,
        axis=f"{AXES[axis]} per prompt",
        budget=budget,
        chosen=chosen,
        cost=offer.cost,
        **_facts(offer),
        prompts=count,
        prompts_digest=setup.prompts,
        **more,
    )
