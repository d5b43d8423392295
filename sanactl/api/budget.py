"""`sanactl.budget`: the best checkpoint, steps and images for a budget."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, cast

from sanactl.api.inputs import PathLike

if TYPE_CHECKING:
    from sanactl.records.records import Record
    from sanactl.records.types import ScoreRecord

__all__ = ["budget"]


def budget(
    records: Union[PathLike, Iterable[Union[PathLike, Mapping[str, Any]]]],
    *,
    images: float | str | None = None,
    flops: float | str | None = None,
    seconds: float | str | None = None,
    top: int = 1,
    round: int | None = None,
    speed: float | str | None = None,
    output: PathLike | None = None,
    force: bool = False,
) -> list[ScoreRecord]:
    """Chooses checkpoint, number of steps and number of images for a budget.

    Args:
        records: what `sanactl.evaluate` gives for images that `sanactl.judge` passed on with `all`; or a JSONL file of
            them, or several.
        images, flops, seconds: the budget of a prompt, one of the three: a number, or text such as "300G" and "1.5min".
            Sampling, decoding and judging are counted.
        top: how many images are kept of each prompt; the score is their mean.
        round: also consider drawing so many images at a time until the judge says yes; None for not.
        speed: FLOPs a second of a machine, to turn FLOPs into seconds; None for the seconds of `sample` and `judge` in
            the current folder's journal.
        output: also write the records to this .jsonl file.
        force: replace `output` where it is there.

    Returns:
        score records of the choices that have the best score for their cost, cheapest first, with `value`, `ci`, `cost`, `checkpoint`,
        `blocks`, `steps`, `selection` and `n`. Where `chosen` is true, it is the best within the budget; this one also
        has `held_out`, the score of such a choice on prompts that it was not made by, and `runner_up`.

    Raises:
        UsageError: not one budget, or no amount above 0.
        InputError: no scored images, different prompts, unknown costs, or nothing within the budget.
        OutputExistsError: `output` is there, and `force` was not given.

    Source: section 2.5, figures 3 and 8.
    """
    from sanactl.files.atomic import check_target
    from sanactl.records.journal import Journal
    from sanactl.records.records import write_records
    from sanactl.scoring.budget.amounts import one_budget, read_amount
    from sanactl.scoring.budget.buy import buy

    axis, amount = one_budget(images, flops, seconds)
    rate = None if speed is None else read_amount(speed, "speed")
    if output is not None:
        check_target(Path(output), force)
    front = buy(_all(records), axis, amount, top=top, round=round, journal=Journal(), speed=rate)
    if output is not None:
        write_records(front, Path(output), force=force)
    return cast("list[ScoreRecord]", front)


def _all(records: Union[PathLike, Iterable[Union[PathLike, Mapping[str, Any]]]]) -> Iterator[Record]:
    """Image and score records of files, or as they are."""
    from sanactl.records.records import check_record, stream_records

    kinds = ("image", "score")
    given = [records] if isinstance(records, str | os.PathLike) else records
    for number, record in enumerate(given, 1):
        if isinstance(record, str | os.PathLike):
            yield from stream_records(Path(record), kinds=kinds)
        else:
            yield check_record(record, f"record {number}", kinds=kinds)
