"""From scored images and scaling scores to the best choice for a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from sanactl.records.journal import Journal
from sanactl.records.records import Record
from sanactl.scoring.budget.choose import FOLDS, choose, offers_of
from sanactl.scoring.budget.rates import with_seconds
from sanactl.scoring.budget.setups import depth_of, on_the_same_prompts, read_setups
from sanactl.scoring.intervals import FEWEST

__all__ = ["buy"]


def buy(
    records: Iterable[Record],
    axis: str,
    amount: float,
    *,
    top: int = 1,
    round: int | None = None,
    journal: Journal | None = None,
    speed: float | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Record]:
    """The Pareto front of score and cost; see `sanactl.scoring.budget.choose.choose`.

    Args:
        records: scored image records, and scaling scores for those whose images are not among them.
        axis: "images", "flops" or "seconds".
        amount: the budget of a prompt.
        top: how many images of a prompt are kept; the score is their mean.
        round: also consider drawing so many images at a time until the judge says yes.
        journal, speed: where seconds come from; see `with_seconds`.
        tell: called with a line about what is left out, or not known.

    Raises:
        InputError: there is nothing to choose from, different prompts do not compare, costs are not known, or nothing
            is within the budget.
    """
    setups = on_the_same_prompts(read_setups(records, tell), tell)
    setups = [replace(s, blocks=depth_of(s.about.get("checkpoint"))) for s in setups]
    setups = with_seconds(setups, journal, speed) if axis == "seconds" or speed is not None else setups
    offers = [offer for setup in setups for offer in offers_of(setup, top=top, round=round)]
    front = choose(offers, axis, amount)
    if any(record.get("chosen") and "held_out" not in record for record in front):
        tell(
            "no score of a choice on prompts that it has not seen: that needs the images' records of at least"
            f" {max(FEWEST, FOLDS)} prompts, some of each task for each fifth"
        )
    return front
