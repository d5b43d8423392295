"""`sanactl.filter`: the image records that meet conditions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from sanactl.api.inputs import (
    DeviceLike,
    PathLike,
    Records,
    as_progress,
    as_records,
    check_seed,
    device_name,
    warn,
)
from sanactl.api.scores import writing_to
from sanactl.files.progress import Progress
from sanactl.records.types import ImageRecord

__all__ = ["filter"]


def filter(
    records: Records,
    *,
    correct: bool = False,
    where: Sequence[str] | None = None,
    per_prompt: int | None = None,
    top: int | None = None,
    dedup: str | None = None,
    by: str | None = None,
    max_bad: int = 0,
    sample: int | None = None,
    seed: int = 0,
    device: DeviceLike | None = None,
    output: PathLike | None = None,
    sheet: PathLike | None = None,
    force: bool = False,
    progress: bool | Progress = False,
) -> list[ImageRecord]:
    """The image records that satisfy all conditions, unchanged and in their order.

    Args:
        records: image records, a JSONL file of them, or a folder in GenEval's layout.
        correct: only images that `evaluate(..., "geneval")` found correct.
        where: conditions on fields, such as "judge_score > 0.8"; all have to hold.
        per_prompt: images of each prompt, the first that come.
        top: images of each prompt, those with the largest `by`.
        dedup: of images that are alike one passes: "phash", "phash:BITS", "clip", "clip:MODEL" or "clip:MODEL:COSINE".
        by: the field that `top` and `dedup` compare; None is `judge_score` for `top`, and the first image for `dedup`.
        max_bad: images that `dedup` may leave out because they cannot be read.
        sample: images in all, drawn at random from those that pass everything else.
        seed: of that drawing.
        device: where CLIP runs; None is the best there is.
        output: also write the records to this .jsonl file.
        sheet: also write the images as one picture to this file (.png, .jpg or .webp).
        force: replace `output` and `sheet` where they are there.
        progress: True for a bar of the images that were read.

    Returns:
        the records that pass.

    Raises:
        UsageError: no condition, a condition or a `dedup` of another form, or options that need another.
        InputError: a field that no record has or that cannot be compared; one image too many cannot be read.
        OutputExistsError: `output` or `sheet` is there, and `force` was not given.

    Source: section 3.3: the training set has 10 correct images of each prompt.
    """
    from sanactl.errors import UsageError
    from sanactl.report.sheet import ContactSheet
    from sanactl.scoring.filter import Condition, Filter, filter_records
    from sanactl.scoring.near import open_likeness

    if any(number is not None and number < 1 for number in (per_prompt, top, sample)):
        raise UsageError(
            f"per_prompt, top and sample have to be at least 1, got {per_prompt}, {top} and {sample}"
        )
    if by is not None and not (top or dedup is not None):
        raise UsageError("by is for top and dedup", hint="give one of them")
    if max_bad and dedup is None:
        raise UsageError("max_bad is for dedup, which alone reads the images", hint="leave it out")
    if not (correct or where or per_prompt or top or dedup is not None or sample):
        raise UsageError(
            "no condition is given", hint="give correct, where, per_prompt, top, dedup or sample"
        )
    check_seed(seed)
    conditions = [Condition(text) for text in where or ()]
    likeness = None if dedup is None else open_likeness(dedup, device_name(device))
    picture = None if sheet is None else ContactSheet(Path(sheet), force=force)
    writing, sink = writing_to(output, force), as_progress(progress)
    wanted = Filter(conditions, correct, likeness, per_prompt, top, by, sample, seed, max_bad)
    sink.start(None, "filtering")
    try:
        passed = writing(
            filter_records(
                as_records(records, "image"),
                wanted,
                count=lambda what: sink.advance() if what == "read" else None,
                tell=warn,
            )
        )
        found = list(passed if picture is None else picture.watching(passed))
        if picture is not None:
            picture.write()
    finally:
        sink.close()
    return cast("list[ImageRecord]", found)
