"""Verdicts on batches of images: kept ones, kept detections under other rules, or new detections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sanactl.files.images import read_image
from sanactl.model.sharing import share
from sanactl.records.batches import KeptBatches
from sanactl.records.fields import FIELDS, check_fields
from sanactl.records.partial import Partial
from sanactl.records.records import Record
from sanactl.scoring.detectors.batch import classifier_of, detect_batch
from sanactl.scoring.detectors.check import ensure_checked
from sanactl.scoring.detectors.protocol import Detected, Detector
from sanactl.scoring.geneval.kept_detections import KeptDetections, detections_line
from sanactl.scoring.geneval.rules import CONFIDENCE, Rules, is_confident, kept_objects, score_image

__all__ = ["Scorer"]

Colors = Callable[[Sequence[Detected], str], list[str]]


Lines = list[tuple[Path, Record]]


@dataclass
class Scorer:
    """Scores batches of images by some rules.

    Attributes:
        detector: finds the objects.
        rules: the rules.
        file: detections that are taken before any are made; new ones are added.
        kept: verdicts of an earlier run that was stopped; new ones are added.
        tell: called with a line before the detector is checked, which takes a while.
        reused: images so far whose detections the file had.
        checked: whether the detector has been checked.
    """

    detector: Detector
    rules: Rules
    file: KeptDetections | None = None
    kept: Partial | None = None
    tell: Callable[[str], None] | None = None
    reused: int = 0
    checked: bool = False

    def all_verdicts(
        self, stream: Iterable[Sequence[Record]]
    ) -> Iterator[tuple[Sequence[Record], list[Record], bool]]:
        """Batches with their verdicts, and whether an earlier run has found them. New ones are kept."""
        before = KeptBatches(self.kept, partial(_is_verdict, self.detector))
        filed: set[int] = set()

        def known(batch: Sequence[Record]) -> tuple[list[Record], Lines] | None:
            filed.discard(id(batch))
            found = before.known(batch)
            if found is None and self.file is not None:
                found = self._of_file(batch, self.file)
                if found is not None:
                    filed.add(id(batch))
                    before.keep(batch, found)
            return None if found is None else (found, [])

        def keep(batch: Sequence[Record], found: tuple[list[Record], Lines]) -> None:
            if self.file is not None:
                self.file.put(found[1])
            before.keep(batch, found[0])

        for batch, (verdicts, _), earlier in share(stream, self.compute, known=known, keep=keep):
            yield batch, verdicts, earlier and id(batch) not in filed

    def compute(self, batch: Sequence[Record]) -> tuple[list[Record], Lines]:
        """The verdicts on a batch, and its detections as lines for the file, without any if there is no file."""
        paths = [Path(record["path"]) for record in batch]
        images = [read_image(path) for path in paths]
        if not self.checked:
            ensure_checked(self.detector, self.tell)
            self.checked = True
        detected = detect_batch(self.detector, images, batch)
        tellers: list[Colors | None] = [classifier_of(self.detector, image) for image in images]
        lines: Lines = []
        if self.file is not None:
            detected = list(map(_with_colors, detected, batch, tellers))
            tellers = [None] * len(batch)
            lines = [
                (path, detections_line(image.shape[:2], objects))
                for path, image, objects in zip(paths, images, detected, strict=True)
            ]
        return list(map(self._verdict, batch, detected, tellers)), lines

    def _of_file(self, batch: Sequence[Record], file: KeptDetections) -> list[Record] | None:
        """The verdicts on a batch whose detections the file has. Where one is missing, all are detected anew."""
        known = [file.get(Path(record["path"])) for record in batch]
        if not all(map(_is_whole, known, batch)):
            return None
        self.reused += len(batch)
        return [self._verdict(record, found or [], None) for record, found in zip(batch, known, strict=True)]

    def _verdict(self, record: Record, found: Sequence[Detected], colors: Colors | None) -> Record:
        compact = [_compact(d) for d in found if is_confident(d.score, CONFIDENCE)]
        result = score_image(found, record, colors=colors, rules=self.rules)
        return {**result, "detector": self.detector.label, "detections": compact}


def _is_verdict(detector: Detector, found: Record) -> bool:
    """Whether something that was kept is a verdict of this detector."""
    fields = ("correct", "reason", "detector", "detections")
    if tuple(found) != fields or found["detector"] != detector.label:
        return False
    try:
        check_fields(FIELDS["image"], found, fields)
    except ValueError:
        return False
    return True


def _asked(record: Record) -> set[str]:
    """The classes of which a prompt asks for a colour."""
    return {clause["class"] for clause in record["include"] if "color" in clause}


def _with_colors(objects: Sequence[Detected], record: Record, colors: Colors | None) -> list[Detected]:
    """The objects, with colours on all that any rules could ask for the colour of."""
    if colors is None:
        return [*objects]
    told: dict[int, str] = {}
    groups = kept_objects(objects, CONFIDENCE)
    for name in sorted(_asked(record)):
        group = groups.get(name, [])
        told |= dict(zip(map(id, group), colors(group, name) if group else [], strict=True))
    return [replace(d, color=told[id(d)]) if id(d) in told else d for d in objects]


def _is_whole(found: list[Detected] | None, record: Record) -> bool:
    """Whether detections are there, with the colours that the record's prompt asks for."""
    if found is None:
        return False
    groups = kept_objects(found, CONFIDENCE)
    return all(d.color is not None for name in _asked(record) for d in groups.get(name, []))


def _compact(found: Detected) -> Record:
    color = {} if found.color is None else {"color": found.color}
    box = [round(float(v), 1) for v in found.box]
    return {"class": found.name, **color, "score": round(float(found.score), 3), "box": box}
