"""What more images of a prompt give, and what they cost (section 2.5): score records with curves.

Each value is exact: the expectation over all choices of n of a prompt's images, or over all orders of them, then the
mean over prompts and tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sanactl.records.records import Record
from sanactl.records.scores import new_score, same_checkpoint, same_field
from sanactl.scoring.geneval.pools import Pools, read_pools
from sanactl.scoring.geneval.rules import RULES, Rules

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["first_hit_record", "points_of", "scaling_curves", "scaling_record"]

SCALING_PROTOCOL = "mean of the tasks' means, exact expectation over all choices of n images"
FIRST_PROTOCOL = "mean of the tasks' means, exact expectation over all orders of the images"


def scaling_curves(records: Iterable[Record], top: int = 1) -> dict[str, list[Record]]:
    """The score that the best of n images reaches for n = 1, 2, 4, ... up to the images of every prompt.

    Args:
        records: image records with `correct`, all that were sampled for their prompts.
        top: how many of the n are kept; the score is their mean (the paper keeps 4). n begins with it.

    Returns:
        {"judge": points, "oracle": points}, a point being {"at": n, "value", "ci", "gain", "gain_ci", "cost"}. `judge`
        is the score of the images with the highest judge_score, absent without such scores; `oracle` that of a judge
        that is never wrong. `ci` is the 95 % interval over prompts, `gain` the difference to a single image with its
        interval by a paired bootstrap over prompts; no intervals below five prompts. `cost` has `images` and, where the
        records know them, `flops`, per prompt: of drawing and judging all n. Neither the oracle's judging nor that
        of an only image costs anything.

    Raises:
        InputError: there are no records, or one has no verdict.
    """
    return _curves(read_pools(records), top)


def _curves(pools: Pools, top: int) -> dict[str, list[Record]]:
    from sanactl.scoring.best_of_n import sizes_up_to

    top = min(top, pools.least)
    sizes = sizes_up_to(pools.least, top)
    curves = {}
    for name in ("judge", "oracle") if pools.judged else ("oracle",):
        oracle = name == "oracle"
        costs = [pools.costs.of(n, 0 if oracle or n == top else n) for n in sizes]
        curves[name] = points_of(pools, sizes, pools.top(sizes, top, oracle=oracle), costs)
    return curves


def points_of(
    pools: Pools, places: Sequence[int], values: NDArray[np.float64], costs: Sequence[Record]
) -> list[Record]:
    """A curve from values [prompts, places]."""
    import numpy as np

    from sanactl.scoring.bootstrap import PairedBootstrap
    from sanactl.scoring.intervals import mean_of_tasks

    tasks = np.array(pools.tasks)
    names = dict.fromkeys(pools.tasks)
    each = {tag: values[tasks == tag] for tag in names}
    counts = {tag: np.ones(len(rows)) for tag, rows in each.items()}
    sampled = np.array([len(pool.correct) for pool in pools.pools], dtype=np.float64)
    overall, _ = mean_of_tasks(each, counts, images={tag: sampled[tasks == tag] for tag in names})
    # The mean of a pool is what one of its images gives.
    single = np.array([[np.mean(pool.correct)] for pool in pools.pools])
    bootstrap = PairedBootstrap(pools.tasks)
    gains, reach = bootstrap.means(values - single), bootstrap.interval(values - single)
    return [
        {
            "at": place,
            "value": rounded(overall.value[i]),
            "ci": None
            if overall.low is None or overall.high is None
            else [rounded(overall.low[i]), rounded(overall.high[i])],
            "gain": rounded(gains[i]),
            "gain_ci": None if reach is None else [rounded(end) for end in reach[i]],
            "cost": cost,
        }
        for i, (place, cost) in enumerate(zip(places, costs, strict=True))
    ]


def rounded(value: float) -> float:
    """To a millionth: beyond is the sums' rounding, which makes 0.9999999999999999 of a whole score, and no -0."""
    return round(float(value), 6) + 0.0


def scaling_record(
    records: Sequence[Record], rules: Rules = RULES["geneval"], *, top: int = 1, **about: Any
) -> Record:
    """`scaling_curves` as a score record; its value is that of one image a prompt.

    Args:
        rules: those of the verdicts.
        top: how many images are kept.
        about: fields that say what it was measured with, such as `detector`.
    """
    pools = read_pools(records)
    curves = _curves(pools, top)
    single = curves["oracle"][0]
    kept = {"top": top} if top > 1 else {}
    protocol = SCALING_PROTOCOL if top == 1 else f"{SCALING_PROTOCOL}, mean of the top {top}"
    return new_score(
        "scaling",
        single["value"],
        ci=single["ci"],
        axis="images per prompt",
        curves=curves,
        protocol=f"{rules.protocol}, {protocol}",
        **kept,
        **about,
        **_source(records, pools),
    )


def first_hit_record(
    records: Sequence[Record], rules: Rules = RULES["geneval"], *, size: int = 1, **about: Any
) -> Record:
    """Drawing images in rounds until one is right, or the judge says so, as a score record.

    Its axis is the largest number of images a prompt. A point has the fields of `scaling_curves` and `success`, the share
    of prompts for which the search ends before its images do. `cost` is that of the images drawn on average, all judged.

    Args:
        rules: those of the verdicts.
        size: images of a round.
        about: fields that say what it was measured with, such as `detector`.
    """
    from sanactl.scoring.best_of_n import sizes_up_to
    from sanactl.scoring.bootstrap import PairedBootstrap

    pools = read_pools(records)
    caps = sizes_up_to(pools.least)
    mean = PairedBootstrap(pools.tasks, resamples=1).means
    curves = {}
    for name in ("judge", "oracle") if pools.answered else ("oracle",):
        oracle = name == "oracle"
        found = pools.first(caps, size, oracle=oracle)
        # A bill is of all prompts; the score weighs tasks alike.
        draws, success = found[:, :, 0].mean(axis=0), mean(found[:, :, 1])
        costs = [pools.costs.of(rounded(d), 0 if oracle else rounded(d)) for d in draws]
        points = points_of(pools, caps, found[:, :, 2], costs)
        curves[name] = [{**p, "success": rounded(s)} for p, s in zip(points, success, strict=True)]
    single = curves["oracle"][0]
    return new_score(
        "first_hit",
        single["value"],
        ci=single["ci"],
        axis="images per prompt at most",
        curves=curves,
        protocol=f"{rules.protocol}, {FIRST_PROTOCOL}",
        round=size,
        **about,
        **_source(records, pools),
    )


def _source(records: Sequence[Record], pools: Pools) -> Record:
    judges = {str(r["judge"]) for r in records if r.get("judge") is not None}
    return {
        **({"judge": ", ".join(sorted(judges))} if judges else {}),
        "images": len(records),
        "prompts": len(pools.pools),
        "prompts_digest": pools.digest(),
        **same_checkpoint(records),
        **same_field(records, "steps"),
    }
