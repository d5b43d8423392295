"""`sanactl.geneval_prompts` and `sanactl.shapes_prompts`: prompts of GenEval's grammar and of the built-in world."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union, cast

from sanactl.api.inputs import PathLike, Prompts, as_prompts, check_seed, warn
from sanactl.errors import UsageError
from sanactl.prompts.exclusion import Excluded
from sanactl.records.records import Record
from sanactl.records.types import PromptRecord

__all__ = ["geneval_prompts", "shapes_prompts"]

Weights = Union[str, Mapping[str, float]]
# "none", or prompts in each of the forms that the functions take.
Exclusions = Union[PathLike, Sequence[Prompts]]


def geneval_prompts(
    *,
    split: str = "official",
    count: int | None = None,
    seed: int | None = None,
    weights: Weights | None = None,
    exclude: Exclusions | None = None,
) -> list[PromptRecord]:
    """GenEval's 553 prompts, or new ones of its grammar that mean nothing that the benchmark means.

    Args:
        split: "official" or "train".
        count: of new prompts; None is 18,240, as in the paper.
        seed: of the draws; None is 0.
        weights: of the tasks, "position:2,counting:1" or a mapping; a task that is not named gives no prompts. None is
            equal weights, without single_object.
        exclude: prompts whose meaning is left out, too: a file, or several of files and lists. "none" keeps the
            benchmark's in the drawing; "none" and a file leave out only what the file has.

    Returns:
        prompt records with `tag` and the clauses of GenEval's metadata; the official ones as in the official file,
        without `kind`.

    Raises:
        UsageError: no such split or task; an option that the official prompts do not have; or no count.
        InputError: a file that is not there; or there are fewer prompts.

    Source: section 3.3: 18,240 prompts of GenEval's grammar; the benchmark is Ghosh et al. 2023.
    """
    from sanactl.prompts.geneval.benchmark import geneval_prompts as official
    from sanactl.prompts.geneval.train import PAPER_COUNT, train_prompts
    from sanactl.prompts.geneval.vocabulary import TASKS

    given = {"count": count, "seed": seed, "weights": weights, "exclude": exclude}
    if split == "official":
        if named := [name for name, value in given.items() if value is not None]:
            raise UsageError(
                f"{named[0]} is for the split train: the official prompts are what they are",
                hint='add split="train"',
            )
        return cast("list[PromptRecord]", list(official()))
    if split != "train":
        raise UsageError(f"split {split!r}: choose one of official, train")
    _check_count(count)
    check_seed(seed or 0)
    found = train_prompts(
        count or PAPER_COUNT,
        seed=seed or 0,
        excluded=_excluded(exclude, official()),
        weights=_weights(weights, TASKS),
        tell=warn,
    )
    return _records(found)


def shapes_prompts(
    *,
    split: str = "eval",
    count: int | None = None,
    tag: str | None = None,
    seed: int = 0,
    weights: Weights | None = None,
    exclude: Exclusions | None = None,
) -> list[PromptRecord]:
    """Prompts of the built-in world, in GenEval's six tasks.

    Args:
        split: "eval", "train" or "calib"; no prompt is in two of them.
        count: how many are drawn; None is 360 of the evaluation split, without other options those that are checked in,
            and 100 of the other splits.
        tag: the only task; None is all six.
        seed: of the draws.
        weights: of the tasks, "position:2,counting:1" or a mapping; a task that is not named gives no prompts.
        exclude: prompts whose meaning is left out: a file, or several of files and lists.

    Returns:
        prompt records with `tag` and the clauses of GenEval's metadata.

    Raises:
        UsageError: no such split or task; `tag` and `weights` together; or no count.
        InputError: a file that is not there; or there are fewer prompts.

    Source: the built-in world is this project's own; its tasks are those of Ghosh et al. 2023.
    """
    from sanactl.prompts.shapes import shapes_prompts as draw
    from sanactl.shapes.prompts import SPLITS, load_eval_prompts
    from sanactl.shapes.vocabulary import TASKS

    if split not in SPLITS:
        raise UsageError(f"split {split!r}: choose one of {', '.join(SPLITS)}")
    if tag is not None and tag not in TASKS:
        raise UsageError(f"tag {tag!r}: choose one of {', '.join(TASKS)}")
    if tag is not None and weights is not None:
        raise UsageError("tag and weights exclude each other", hint=f"weights={{{tag!r}: 1}} is tag={tag!r}")
    _check_count(count)
    check_seed(seed)
    excluded = _excluded(exclude, [])
    if count is None and split == "eval" and weights is None and not excluded:
        return _records(r for r in load_eval_prompts() if tag in (None, r["tag"]))
    found = draw(
        split,
        count or (360 if split == "eval" else 100),
        seed=seed,
        excluded=excluded,
        weights={tag: 1.0} if tag else _weights(weights, TASKS),
        tell=warn,
    )
    return _records(found)


def _records(found: Iterable[Record]) -> list[PromptRecord]:
    return cast("list[PromptRecord]", [{"kind": "prompt", **record} for record in found])


def _check_count(count: int | None) -> None:
    if count is not None and count < 1:
        raise UsageError(f"count is {count}, and has to be at least 1")


def _weights(weights: Weights | None, tasks: Sequence[str]) -> dict[str, float] | None:
    from sanactl.prompts.draw import parse_weights

    if weights is None:
        return None
    text = weights if isinstance(weights, str) else ",".join(f"{k}:{v}" for k, v in weights.items())
    return parse_weights(text, tasks)


def _excluded(given: Exclusions | None, always: Sequence[Record]) -> Excluded:
    """What is left out, as --exclude of the commands has it."""
    several: list[Any] = (
        list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    )
    kept = [one for one in several if one is not None and not (isinstance(one, str) and one == "none")]
    excluded = Excluded(() if "none" in [one for one in several if isinstance(one, str)] else always)
    for one in kept:
        before, records = excluded.unread, as_prompts(one, default="shapes")
        excluded.add(records)
        if unread := excluded.unread - before:
            warn(
                f"exclude: {unread:,} of {len(records):,} prompts are not of GenEval's grammar; of these, only the same"
                " words are left out"
            )
    return excluded
