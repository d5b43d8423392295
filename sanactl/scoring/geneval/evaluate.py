"""`eval geneval`: passes on image records with verdicts, then scores with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from sanactl.errors import InputError, UsageError
from sanactl.files.images import read_image
from sanactl.files.progress import SILENT, Progress
from sanactl.records.fields import FIELDS, check_fields
from sanactl.records.geneval_folder import read_geneval_folder
from sanactl.records.partial import Partial, image_key
from sanactl.records.records import Record
from sanactl.scoring.detectors.batch import classifier_of, detect_batch, facts_of
from sanactl.scoring.detectors.protocol import Detected, Detector
from sanactl.scoring.detectors.registry import open_detector
from sanactl.scoring.geneval.rules import CONFIDENCE, TASKS, check_record, is_confident, score_image
from sanactl.scoring.geneval.scores import (
    by_prompt,
    geneval_record,
    scaling_curves,
    scaling_record,
    selection,
    unselected,
)

__all__ = ["evaluate_geneval", "read_geneval_folder", "scaling_curves", "scaling_record", "selection"]


def evaluate_geneval(
    records: Iterable[Record],
    *,
    detector: str | Detector = "shapes",
    batch_size: int | None = None,
    kept: Partial | None = None,
    progress: Progress = SILENT,
) -> Iterator[Record]:
    """Scores images by GenEval's rules, as they come.

    Args:
        records: image records with the `tag` and `include` of their prompts; relative paths are from the
            current folder. Prompts are told apart by `prompt_id` (or `id`) and text.
        detector: a name of `sanactl.scoring.detectors.registry.DETECTORS`, or a detector.
        batch_size: images that the detector gets at once, by default its own `batch_size`. So many images are in
            memory.
        kept: verdicts of an earlier run that was stopped; this run's are added. A batch is detected anew unless all
            of its verdicts are there, so that the same records and batch size give the same verdicts.

    Yields:
        each record with `correct`, `reason`, `detector` and `detections` (above confidence 0.3, without
        masks) added; then, where every prompt has several images that nothing has selected, a `scaling` score
        (`scaling_record`); last a `geneval` score: `value`, the mean of the task means of per-image
        correctness, and `tasks`, each with its 95 % interval over prompts.

    Raises:
        InputError: an image cannot be read or comes twice, a record cannot be scored by GenEval's rules or
            asks for objects that the detector does not know, or there are no records.
        UsageError: there is no such detector, or the batch size is less than one.
    """
    chosen = open_detector(detector) if isinstance(detector, str) else detector
    size = chosen.batch_size if batch_size is None else batch_size
    if size < 1:
        raise UsageError(f"the batch size must be at least 1, got {size}")
    seen: list[Record] = []
    right = taken = 0
    progress.start(None, "scoring images")
    try:
        checked = _checked(records, chosen)
        while batch := list(islice(checked, size)):
            verdicts, known = _verdicts(batch, chosen, kept)
            taken += len(batch) if known else 0
            for record, verdict in zip(batch, verdicts, strict=True):
                right += verdict["correct"]
                scored = {**record, **verdict}
                seen.append({key: value for key, value in scored.items() if key in _KEPT})
                progress.advance(1, correct=f"{right / len(seen):.1%}")
                yield scored
    finally:
        progress.close()
    if not seen:
        raise InputError("no image records to score", hint="sanactl sample makes some")
    if taken:
        progress.note(f"{taken:,} verdicts were taken over from a run that was stopped")
    missing = [task for task in TASKS if task not in {record["tag"] for record in seen}]
    if missing:
        progress.note(f"the overall score is over the tasks present; without {', '.join(missing)}")
    about = {"detector": chosen.label, **({"detector_digest": chosen.digest} if chosen.digest else {})}
    about |= facts_of(chosen)
    if min(len(images) for images in by_prompt(seen)) > 1 and unselected(seen):
        yield scaling_record(seen, **about)
    yield geneval_record(seen, **about)


# The fields that the scores at the end need. Other fields are not held: a benchmark has tens of thousands of images, each
# with its boxes.
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
    ]
)


def _known(found: Record | None, detector: Detector) -> Record | None:
    """A verdict that was kept, or None where it is none of this detector."""
    fields = ("correct", "reason", "detector", "detections")
    if found is None or tuple(found) != fields or found["detector"] != detector.label:
        return None
    try:
        check_fields(FIELDS["image"], found, fields)
    except ValueError:
        return None
    return found


def _checked(records: Iterable[Record], detector: Detector) -> Iterator[Record]:
    """The records, each found to be distinct and one that the detector can score."""
    paths: set[str] = set()
    for record in records:
        if record["path"] in paths:
            raise InputError(f"{record['path']} comes twice", hint="score a stream of distinct images")
        paths.add(record["path"])
        check_record(record)
        clauses = [*record["include"], *(record.get("exclude") or ())]
        unknown = sorted({clause["class"] for clause in clauses} - detector.classes)
        if unknown:
            raise InputError(
                f"{record['path']}: the detector {detector.label} knows no {unknown[0]!r}",
                hint=f"it knows {', '.join(sorted(detector.classes)[:8])}; choose another with --detector",
            )
        yield record


def _verdicts(batch: Sequence[Record], detector: Detector, kept: Partial | None) -> tuple[list[Record], bool]:
    """The verdicts on a batch, and whether an earlier run has found them."""
    keys = [None if kept is None else image_key(record) for record in batch]
    if kept is not None:
        known = [v for key in keys if (v := _known(kept.get(key), detector)) is not None]
        if len(known) == len(batch):
            return known, True
    images = [read_image(Path(record["path"])) for record in batch]
    verdicts = []
    for image, record, found in zip(images, batch, detect_batch(detector, images, batch), strict=True):
        compact = [_compact(d) for d in found if is_confident(d.score, CONFIDENCE)]
        result = score_image(found, record, colors=classifier_of(detector, image))
        verdicts.append({**result, "detector": detector.label, "detections": compact})
    if kept is not None:
        kept.put(zip(keys, verdicts, strict=True))
    return verdicts, False


def _compact(found: Detected) -> Record:
    color = {} if found.color is None else {"color": found.color}
    box = [round(float(v), 1) for v in found.box]
    return {"class": found.name, **color, "score": round(float(found.score), 3), "box": box}
