"""The score at the end of `eval geneval`: tasks with intervals, and how images were selected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sanactl.records.records import Record
from sanactl.records.scores import new_score, same_checkpoint, same_field
from sanactl.scoring.geneval.pools import by_prompt
from sanactl.scoring.geneval.rules import RULES, TASKS, Rules

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sanactl.scoring.intervals import Estimate

__all__ = ["geneval_record", "selection", "unselected"]

# How scores come about, after the rules: those of another protocol do not compare.
PROTOCOL = "mean of the tasks' means"


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
        **same_field(records, "steps"),
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
    """Whether these are all images that were sampled; winners of N tell nothing of the best of fewer.

    Images that were drawn again from some of a prompt's drafts are not all of them.
    """
    prompts = by_prompt(records)
    if any(_drafts(images[0]) > len(images) for images in prompts):
        return False
    unjudged = all(r.get("judge") is None and r.get("rank") is None for images in prompts for r in images)
    return unjudged or all(len(images) == images[0].get("samples") for images in prompts)


def selection(records: Sequence[Record]) -> str:
    """How the images of these records came to be among them, from `judge`, `rank` and `samples`.

    "single" where nothing chose between images; "best-of-16 by NAME" for a judge's winners; "best 4 of 16 by
    NAME" where it kept several a prompt; "best-of-n" where the records do not tell out of how many. Where the images
    were drawn again from drafts, these are counted as well: "best-of-4 (of 16 drafts) by NAME", or "best 4 of 16 drafts"
    where all redrawn images are here.
    """
    if unselected(records):
        return "single"
    prompts = by_prompt(records)
    drafts = {_drafts(images[0]) for images in prompts} - {0}
    of_drafts = f"{_range(drafts)} drafts"
    kept = max(len(images) for images in prompts)
    if drafts and all(len(images) == images[0].get("samples") for images in prompts):
        return f"best-of-{of_drafts}" if kept == 1 else f"best {kept} of {of_drafts}"
    names = {str(r["judge"]) for r in records if r.get("judge") is not None}
    by = f" by {', '.join(sorted(names))}" if names else ""
    sizes = {r["samples"] for r in records if isinstance(r.get("samples"), int)}
    total = _range(sizes) + (f" (of {of_drafts})" if drafts else "")
    return (f"best-of-{total}" if kept == 1 else f"best {kept} of {total}") + by


def _drafts(record: Record) -> int:
    """From how many drafts of its prompt an image was chosen to be drawn again; 0 where it has no draft."""
    drafts = record.get("draft_samples")
    return drafts if type(drafts) is int else 0


def _range(counts: set[int]) -> str:
    if not counts:
        return "n"
    return f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
