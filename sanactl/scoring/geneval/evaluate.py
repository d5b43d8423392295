"""`eval geneval`: image records in, the same with verdicts out, and scores with intervals at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.files.images import read_image
from sanactl.files.progress import SILENT, Progress
from sanactl.records.fields import FIELDS, check_fields
from sanactl.records.geneval_folder import read_geneval_folder
from sanactl.records.partial import Partial, image_key
from sanactl.scoring.geneval.rules import (
    CONFIDENCE,
    TASKS,
    Detected,
    Detector,
    check_record,
    get_detector,
    is_confident,
    score_image,
)
from sanactl.scoring.geneval.scores import (
    by_prompt,
    scaling_curve,
    scaling_record,
    score_record,
    selection,
    unselected,
)

__all__ = ["evaluate_geneval", "read_geneval_folder", "scaling_curve", "scaling_record", "selection"]

Record = dict[str, Any]


def evaluate_geneval(
    records: Iterable[Record],
    *,
    detector: str | Detector = "shapes",
    kept: Partial | None = None,
    progress: Progress = SILENT,
) -> Iterator[Record]:
    """Scores images by GenEval's rules, as they come.

    Args:
        records: image records with the `tag` and `include` of their prompts; relative paths are from the
            current folder. Prompts are told apart by `prompt_id` (or `id`) and text.
        detector: a name of `DETECTORS`, or a detector.
        kept: verdicts of an earlier run that was stopped; this run's are added.

    Yields:
        each record with `correct`, `reason`, `detector` and `detections` (above confidence 0.3, without
        masks) added; then, where every prompt has several images that nothing has selected, a `scaling` score
        (`scaling_record`); last a `geneval` score: `overall`, the mean of the task means of per-image
        correctness, and `tasks`, each with its 95 % interval from resampling prompts.

    Raises:
        InputError: an image cannot be read or comes twice, a record cannot be scored by GenEval's rules or
            asks for objects that the detector does not know, or there are no records.
    """
    chosen = get_detector(detector) if isinstance(detector, str) else detector
    seen: list[Record] = []
    paths: set[str] = set()
    right = taken = 0
    progress.start(None, "scoring images")
    try:
        for record in records:
            if record["path"] in paths:
                raise InputError(f"{record['path']} comes twice", hint="score a stream of distinct images")
            paths.add(record["path"])
            key = None if kept is None else image_key(record)
            verdict = None if kept is None else _known(kept.get(key), chosen)
            if verdict is not None:
                taken += 1
            else:
                verdict = _verdict(record, chosen)
                if kept is not None:
                    kept.put([(key, verdict)])
            right += verdict["correct"]
            seen.append({key: value for key, value in {**record, **verdict}.items() if key in _KEPT})
            progress.advance(1, correct=f"{right / len(seen):.1%}")
            yield {**record, **verdict}
    finally:
        progress.close()
    if not seen:
        raise InputError("no image records to score", hint="sanactl sample makes some")
    if taken:
        progress.note(f"{taken:,} verdicts were taken over from a run that was stopped")
    missing = [task for task in TASKS if task not in {record["tag"] for record in seen}]
    if missing:
        progress.note(f"the overall score is over the tasks present; without {', '.join(missing)}")
    if min(len(images) for images in by_prompt(seen)) > 1 and unselected(seen):
        yield scaling_record(seen)
    yield score_record(seen, chosen.label)


# What the scores at the end are made from: a benchmark has tens of thousands of images, each with its boxes.
_KEPT = frozenset(
    [
        "prompt_id",
        "id",
        "prompt",
        "tag",
        "samples",
        "checkpoint",
        "digest",
        "judge",
        "judge_score",
        "rank",
        "correct",
        "detector",
    ]
)


def _known(found: Record | None, detector: Detector) -> Record | None:
    """A verdict that was kept, if it is one."""
    fields = ("correct", "reason", "detector", "detections")
    if found is None or tuple(found) != fields or found["detector"] != detector.label:
        return None
    try:
        check_fields(FIELDS["image"], found, fields)
    except ValueError:
        return None
    return found


def _verdict(record: Record, detector: Detector) -> Record:
    check_record(record)
    clauses = [*record["include"], *(record.get("exclude") or ())]
    unknown = sorted({clause["class"] for clause in clauses} - detector.classes)
    if unknown:
        raise InputError(
            f"{record['path']}: the detector {detector.label} knows no {unknown[0]!r}",
            hint=f"it knows {', '.join(sorted(detector.classes)[:8])}; choose another with --detector",
        )
    image = read_image(Path(record["path"]))
    try:
        found = detector.detect(image)
    except ValueError as error:
        raise InputError(f"{record['path']}: {error}") from None
    colors = partial(detector.colors, image) if detector.colors else None
    compact = [_compact(d) for d in found if is_confident(d.score, CONFIDENCE)]
    return {**score_image(found, record, colors=colors), "detector": detector.label, "detections": compact}


def _compact(found: Detected) -> Record:
    color = {} if found.color is None else {"color": found.color}
    box = [round(float(v), 1) for v in found.box]
    return {"class": found.name, **color, "score": round(float(found.score), 3), "box": box}
