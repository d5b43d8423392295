"""`eval geneval`: passes on image records with verdicts, then scores with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sanactl.errors import InputError, UsageError
from sanactl.files.progress import SILENT, Progress
from sanactl.records.batches import batches
from sanactl.records.geneval_folder import read_geneval_folder
from sanactl.records.partial import Partial
from sanactl.records.records import Record
from sanactl.scoring.detectors.batch import check_classes, facts_of
from sanactl.scoring.detectors.protocol import Detector
from sanactl.scoring.detectors.registry import open_detector
from sanactl.scoring.geneval.coverage import PromptCoverage
from sanactl.scoring.geneval.kept_detections import KeptDetections
from sanactl.scoring.geneval.pools import by_prompt
from sanactl.scoring.geneval.rules import RULES, TASKS, check_record
from sanactl.scoring.geneval.scaling import first_hit_record, scaling_curves, scaling_record
from sanactl.scoring.geneval.scorer import Scorer
from sanactl.scoring.geneval.scores import geneval_record, selection, unselected

__all__ = [
    "FinalScores",
    "evaluate_geneval",
    "read_geneval_folder",
    "scaling_curves",
    "scaling_record",
    "selection",
]


@dataclass(frozen=True)
class FinalScores:
    """The scores at the end of `eval geneval`.

    Attributes:
        allow_missing: score what is there where a prompt has fewer images than its records say were sampled.
        top: how many of n images are kept.
        round: images of a round, for the search that ends at the first right image; None for no such curve.
    """

    allow_missing: bool = False
    top: int = 1
    round: int | None = None


USUAL = FinalScores()


def evaluate_geneval(
    records: Iterable[Record],
    *,
    detector: str | Detector = "shapes",
    batch_size: int | None = None,
    rules: str = "geneval",
    detections: Path | None = None,
    final: FinalScores = USUAL,
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
        rules: a name of `sanactl.scoring.geneval.rules.RULES`.
        detections: a file of detections: those of an image that are in it are taken, the others are added.
        final: what is scored at the end.
        kept: verdicts of an earlier run that was stopped; this run's are added. A batch is detected anew unless all
            of its verdicts are there, so that the same records and batch size give the same verdicts.

    Yields:
        each record with `correct`, `reason`, `detector` and `detections` (above confidence 0.3, without
        masks) added; then, where every prompt has several images that nothing has selected, a `scaling` score
        (`scaling_record`), and with rounds a `first_hit` score (`first_hit_record`); last a `geneval` score: `value`, the
        mean of the task means of per-image correctness, and `tasks`, each with its 95 % interval over prompts. By other
        rules it has their name. Scores say in `benchmark` which prompts they are of (`sanactl.scoring.geneval.coverage`).

    Raises:
        InputError: an image cannot be read or comes twice, a record cannot be scored by GenEval's rules or
            asks for objects that the detector does not know, images are missing, or there are no records.
        UsageError: there is no such detector, there are no such rules, or the batch size is less than one.
    """
    chosen = open_detector(detector) if isinstance(detector, str) else detector
    size = chosen.batch_size if batch_size is None else batch_size
    if size < 1:
        raise UsageError(f"the batch size must be at least 1, got {size}")
    if rules not in RULES:
        raise UsageError(f"no rules {rules!r}", hint=f"there are: {', '.join(RULES)}")
    file = None if detections is None else KeptDetections(detections, chosen)
    scorer = Scorer(chosen, RULES[rules], file, kept, progress.note)
    seen: list[Record] = []
    coverage = PromptCoverage()
    right = taken = 0
    progress.start(None, "scoring images")
    try:
        checked = _checked(records, chosen)
        for batch, verdicts, known in scorer.all_verdicts(batches(checked, size)):
            taken += len(batch) if known else 0
            for record, verdict in zip(batch, verdicts, strict=True):
                right += verdict["correct"]
                coverage.add(record)
                scored = {**record, **verdict}
                seen.append({key: value for key, value in scored.items() if key in _KEPT})
                progress.advance(1, correct=f"{right / len(seen):.1%}")
                yield scored
    finally:
        progress.close()
    if not seen:
        raise InputError("no image records to score", hint="sanactl sample makes some")
    if taken:
        progress.note(f"{taken:,} verdicts were taken over from earlier runs")
    if scorer.reused:
        progress.note(f"the detections of {scorer.reused:,} images were in {detections} already")
    if not final.allow_missing:
        _check_complete(seen)
    missing = [task for task in TASKS if task not in {record["tag"] for record in seen}]
    if missing:
        progress.note(f"the overall score is over the tasks present; without {', '.join(missing)}")
    about = {"detector": chosen.label, **({"detector_digest": chosen.digest} if chosen.digest else {})}
    about |= facts_of(chosen) | {"benchmark": coverage.said()}
    if min(len(images) for images in by_prompt(seen)) > 1 and unselected(seen):
        if final.top > (least := min(len(images) for images in by_prompt(seen))):
            progress.note(
                f"the best {final.top} of {least} images are all of them; the curve is that of {least}"
            )
        yield scaling_record(seen, scorer.rules, top=min(final.top, least), **about)
        if final.round is not None:
            yield first_hit_record(seen, scorer.rules, size=final.round, **about)
    yield geneval_record(seen, scorer.rules, **about)


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
        "judge_flops",
        "verdict",
        "flops",
        "steps",
        "rank",
        "correct",
    ]
)


def _checked(records: Iterable[Record], detector: Detector) -> Iterator[Record]:
    """The records, each found to be distinct and one that the detector can score."""
    paths: set[str] = set()
    for record in records:
        if record["path"] in paths:
            raise InputError(f"{record['path']} comes twice", hint="score a stream of distinct images")
        paths.add(record["path"])
        check_record(record)
        check_classes(detector, record)
        yield record


def _check_complete(records: Sequence[Record]) -> None:
    """Raises InputError where a prompt has fewer images than were sampled and no judge has chosen among them."""
    if any(r.get("judge") is not None or r.get("rank") is not None for r in records):
        return
    short = [images for images in by_prompt(records) if len(images) < (images[0].get("samples") or 0)]
    if short:
        lacking = sum(images[0]["samples"] - len(images) for images in short)
        first = short[0][0]
        has = f"{str(first['prompt'])[:60]!r} has {len(short[0])} of {first['samples']}"
        raise InputError(
            f"{lacking:,} images are missing; {has}",
            hint="sample what is missing, or score what is there with --allow-missing",
        )
