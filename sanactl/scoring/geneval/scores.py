"""The scores at the end of `eval geneval`: tasks with intervals, how images were selected, best-of-n curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError
from sanactl.scoring.geneval.rules import TASKS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sanactl.scoring.intervals import Estimate

__all__ = ["by_prompt", "scaling_curve", "scaling_record", "score_record", "selection", "unselected"]

Record = dict[str, Any]


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


def score_record(records: list[Record], label: str) -> Record:
    """The `geneval` score of image records with verdicts of the detector `label`; see `evaluate_geneval`."""
    import numpy as np

    from sanactl.scoring.intervals import bootstrap_task_means

    prompts = by_prompt(records)
    sums: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, NDArray[np.float64]] = {}
    for tag in _tasks_in_order(prompts):
        mine = [images for images in prompts if str(images[0].get("tag")) == tag]
        sums[tag] = np.array([sum(r["correct"] for r in images) for images in mine], dtype=np.float64)
        counts[tag] = np.array([len(images) for images in mine], dtype=np.float64)
    overall, tasks = bootstrap_task_means(sums, counts)
    return {
        "kind": "score",
        "metric": "geneval",
        "detector": label,
        "overall": _rounded(overall.value[0]),
        "ci": _interval(overall),
        "tasks": {
            tag: {"score": _rounded(task.value[0]), "ci": _interval(task), "images": int(counts[tag].sum())}
            for tag, task in tasks.items()
        },
        "images": len(records),
        "prompts": len(prompts),
        **_checkpoint(records),
        "selection": selection(records),
    }


def _rounded(value: float) -> float:
    """To a millionth: beyond is the sums' rounding, which makes 0.9999999999999999 of a whole score."""
    return round(float(value), 6)


def _interval(estimate: Estimate, column: int = 0) -> list[float]:
    return [_rounded(estimate.low[column]), _rounded(estimate.high[column])]


def _checkpoint(records: Sequence[Record]) -> Record:
    """{"checkpoint": ..., "digest": ...} as far as all records name the same ones."""
    found = {}
    for field in ("checkpoint", "digest"):
        names = {str(record.get(field)) for record in records}
        if len(names) == 1 and records[0].get(field) is not None:
            found[field] = names.pop()
    return found


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


def scaling_curve(records: Iterable[Record]) -> list[Record]:
    """The score that best-of-n reaches for n = 1, 2, 4, ... up to the images of every prompt (section 2.5).

    Each value is exact: the expectation over all choices of n of a prompt's images, then the mean over
    prompts and tasks. It needs each image's verdict; the judge's curve needs ranks or scores of all images.

    Args:
        records: image records with `correct`, all that were sampled for their prompts.

    Returns:
        {"n", "judge", "judge_ci", "oracle", "oracle_ci"} for each n: `judge` is the score of the image with
        the highest judge_score, None without such scores; `oracle` that of a judge who is never wrong; the
        intervals cover 95 % from resampling prompts.

    Raises:
        InputError: there are no records, or one has no verdict.
    """
    import numpy as np

    from sanactl.scoring.best_of_n import expected_best_of_n, pass_at_n, sizes_up_to
    from sanactl.scoring.intervals import bootstrap_task_means

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
    for tag in _tasks_in_order(prompts):
        rows = []
        for images in (i for i in prompts if str(i[0].get("tag")) == tag):
            correct = [float(r["correct"]) for r in images]
            scores = _judge_scores(images) if judged else None
            by_judge = [] if scores is None else [expected_best_of_n(correct, scores, n) for n in sizes]
            rows.append(by_judge + [pass_at_n(correct, n) for n in sizes])
        values[tag] = np.array(rows)
    overall, _ = bootstrap_task_means(values, {tag: np.ones(len(v)) for tag, v in values.items()})
    oracle = len(sizes) if judged else 0
    return [
        {
            "n": n,
            "judge": _rounded(overall.value[i]) if judged else None,
            "judge_ci": _interval(overall, i) if judged else None,
            "oracle": _rounded(overall.value[oracle + i]),
            "oracle_ci": _interval(overall, oracle + i),
        }
        for i, n in enumerate(sizes)
    ]


def scaling_record(records: Sequence[Record]) -> Record:
    """`scaling_curve` as a score record: {"metric": "scaling", "points": [...], ...}."""
    points = scaling_curve(records)
    judges = {str(r["judge"]) for r in records if r.get("judge") is not None}
    detectors = {str(r["detector"]) for r in records if r.get("detector") is not None}
    return {
        "kind": "score",
        "metric": "scaling",
        **({"detector": detectors.pop()} if len(detectors) == 1 else {}),
        **({"judge": ", ".join(sorted(judges))} if judges else {}),
        "single": points[0]["oracle"],
        "single_ci": points[0]["oracle_ci"],
        "points": points,
        "images": len(records),
        "prompts": len(by_prompt(records)),
        **_checkpoint(records),
    }
