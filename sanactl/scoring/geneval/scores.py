"""The scores at the end of `eval geneval`: tasks with intervals, how images were selected, best-of-n curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError
from sanactl.records.records import Record
from sanactl.records.scores import new_score, same_checkpoint
from sanactl.scoring.geneval.rules import RULES, TASKS, Rules

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sanactl.scoring.intervals import Estimate

__all__ = ["by_prompt", "geneval_record", "scaling_curves", "scaling_record", "selection", "unselected"]

# How scores come about, after the rules: those of another protocol do not compare.
PROTOCOL = "mean of the tasks' means"
SCALING_PROTOCOL = "mean of the tasks' means, exact expectation over all choices of n images"


def by_prompt(records: Iterable[Record]) -> list[list[Record]]:
    """The records of each prompt of each task, in the order of their first images."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        name = str(record.get("prompt_id", record.get("id")))
        groups.setdefault((record.get("tag"), name, record.get("prompt")), []).append(record)
    return list(groups.values())


def _tasks_in_order(prompts: Sequence[Sequence[Record]]) -> list[str]:
    tags = dict.fromkeys(str(images[0].get("tag")) for images in prompts)
    return [tag for tag in TASKS if tag in tags] + [tag for tag in tags if tag not in TASKS]


def geneval_record(records: list[Record], rules: Rules = RULES["geneval"], **about: Any) -> Record:
    """The score of image records with verdicts; see `evaluate_geneval`.

    Args:
        rules: those of the verdicts.
        about: fields that say what it was measured with, such as `detector`.
    """
    import numpy as np

    from sanactl.scoring.intervals import mean_of_tasks

    prompts = by_prompt(records)
    sums: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, NDArray[np.float64]] = {}
    for tag in _tasks_in_order(prompts):
        mine = [images for images in prompts if str(images[0].get("tag")) == tag]
        sums[tag] = np.array([sum(r["correct"] for r in images) for images in mine], dtype=np.float64)
        counts[tag] = np.array([len(images) for images in mine], dtype=np.float64)
    overall, tasks = mean_of_tasks(sums, counts)
    # As the official summary counts them: over all prompts, whatever their task.
    any_correct = np.array([any(r["correct"] for r in images) for images in prompts], dtype=np.float64)
    share, _ = mean_of_tasks({"": any_correct}, {"": np.ones(len(prompts))})
    return new_score(
        rules.metric,
        _rounded(overall.value[0]),
        ci=_interval(overall),
        tasks={
            tag: {"value": _rounded(task.value[0]), "ci": _interval(task), "images": int(counts[tag].sum())}
            for tag, task in tasks.items()
        },
        correct_prompts=_rounded(share.value[0]),
        correct_prompts_ci=_interval(share),
        protocol=f"{rules.protocol}, {PROTOCOL}",
        **about,
        images=len(records),
        prompts=len(prompts),
        **same_checkpoint(records),
        selection=selection(records),
    )


def _rounded(value: float) -> float:
    """To a millionth: beyond is the sums' rounding, which makes 0.9999999999999999 of a whole score."""
    return round(float(value), 6)


def _interval(estimate: Estimate, column: int = 0) -> list[float] | None:
    if estimate.low is None or estimate.high is None:
        return None
    return [_rounded(estimate.low[column]), _rounded(estimate.high[column])]


def unselected(records: Iterable[Record]) -> bool:
    """Whether these are all images that were sampled; winners of N tell nothing of the best of fewer."""
    prompts = by_prompt(records)
    unjudged = all(r.get("judge") is None and r.get("rank") is None for images in prompts for r in images)
    return unjudged or all(len(images) == images[0].get("samples") for images in prompts)


def selection(records: Sequence[Record]) -> str:
    """How the images of these records came to be among them, from `judge`, `rank` and `samples`.

    "single" where nothing chose between images; "best-of-16 by NAME" for a judge's winners; "best 4 of 16 by
    NAME" where it kept several a prompt; "best-of-n" where the records do not tell out of how many.
    """
    if unselected(records):
        return "single"
    names = {str(r["judge"]) for r in records if r.get("judge") is not None}
    by = f" by {', '.join(sorted(names))}" if names else ""
    sizes = {r["samples"] for r in records if isinstance(r.get("samples"), int)}
    total = f"{min(sizes)}" if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)}" if sizes else "n"
    kept = max(len(images) for images in by_prompt(records))
    return (f"best-of-{total}" if kept == 1 else f"best {kept} of {total}") + by


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


def scaling_curves(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The score that best-of-n reaches for n = 1, 2, 4, ... up to the images of every prompt (section 2.5).

    Each value is exact: the expectation over all choices of n of a prompt's images, then the mean over
    prompts and tasks. It needs each image's verdict; the judge's curve needs ranks or scores of all images.

    Args:
        records: image records with `correct`, all that were sampled for their prompts.

    Returns:
        {"judge": points, "oracle": points}, a point being {"at": n, "value", "ci"}. `judge` is the score of the image
        with the highest judge_score, absent without such scores; `oracle` that of a judge that is never wrong; `ci` is
        the 95 % interval over prompts, None below five prompts.

    Raises:
        InputError: there are no records, or one has no verdict.
    """
    import numpy as np

    from sanactl.scoring.best_of_n import expected_best_of_n, pass_at_n, sizes_up_to
    from sanactl.scoring.intervals import mean_of_tasks

    prompts = by_prompt(records)
    if not prompts:
        raise InputError("no image records to draw a scaling curve from")
    for record in (r for images in prompts for r in images):
        if not isinstance(record.get("correct"), bool):
            raise InputError(
                f"{record.get('path')}: no verdict in its record", hint="run sanactl eval geneval first"
            )
    judged = all(_judge_scores(images) is not None for images in prompts)
    sizes = sizes_up_to(min(len(images) for images in prompts))
    values: dict[str, NDArray[np.float64]] = {}
    sampled: dict[str, NDArray[np.float64]] = {}
    for tag in _tasks_in_order(prompts):
        rows = []
        mine = [images for images in prompts if str(images[0].get("tag")) == tag]
        sampled[tag] = np.array([len(images) for images in mine], dtype=np.float64)
        for images in mine:
            correct = [float(r["correct"]) for r in images]
            scores = _judge_scores(images) if judged else None
            by_judge = [] if scores is None else [expected_best_of_n(correct, scores, n) for n in sizes]
            rows.append(by_judge + [pass_at_n(correct, n) for n in sizes])
        values[tag] = np.array(rows)
    once = {tag: np.ones(len(rows)) for tag, rows in values.items()}
    overall, _ = mean_of_tasks(values, once, images=sampled)
    names = ("judge", "oracle") if judged else ("oracle",)
    return {
        name: [
            {"at": n, "value": _rounded(overall.value[column]), "ci": _interval(overall, column)}
            for column, n in enumerate(sizes, start=place * len(sizes))
        ]
        for place, name in enumerate(names)
    }


def scaling_record(records: Sequence[Record], rules: Rules = RULES["geneval"], **about: Any) -> Record:
    """`scaling_curves` as a score record; its value is that of one image a prompt.

    Args:
        rules: those of the verdicts.
        about: fields that say what it was measured with, such as `detector`.
    """
    curves = scaling_curves(records)
    judges = {str(r["judge"]) for r in records if r.get("judge") is not None}
    single = curves["oracle"][0]
    return new_score(
        "scaling",
        single["value"],
        ci=single["ci"],
        axis="images per prompt",
        curves=curves,
        protocol=f"{rules.protocol}, {SCALING_PROTOCOL}",
        **about,
        **({"judge": ", ".join(sorted(judges))} if judges else {}),
        images=len(records),
        prompts=len(by_prompt(records)),
        **same_checkpoint(records),
    )
