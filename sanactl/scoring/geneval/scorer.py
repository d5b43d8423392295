"""Verdicts on batches of images: kept ones, kept detections under other rules, or new detections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sanactl.files.images import read_image
from sanactl.records.fields import FIELDS, check_fields
from sanactl.records.partial import Partial, image_key
from sanactl.records.records import Record
from sanactl.scoring.detectors.batch import classifier_of, detect_batch
from sanactl.scoring.detectors.check import ensure_checked
from sanactl.scoring.detectors.protocol import Detected, Detector
from sanactl.scoring.geneval.kept_detections import KeptDetections
from sanactl.scoring.geneval.rules import CONFIDENCE, Rules, is_confident, kept_objects, score_image

__all__ = ["Scorer"]

Colors = Callable[[Sequence[Detected], str], list[str]]


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
    file: KeptDetections | None
    kept: Partial | None
    tell: Callable[[str], None] | None = None
    reused: int = 0
    checked: bool = False

    def verdicts(self, batch: Sequence[Record]) -> tuple[list[Record], bool]:
        """The verdicts on a batch, and whether an earlier run has found them."""
        keys = [None if self.kept is None else image_key(record) for record in batch]
        if self.kept is not None:
            known = [v for key in keys if (v := _known(self.kept.get(key), self.detector)) is not None]
            if len(known) == len(batch):
                return known, True
        verdicts = []
        for record, found, colors in self._detected(batch):
            compact = [_compact(d) for d in found if is_confident(d.score, CONFIDENCE)]
            result = score_image(found, record, colors=colors, rules=self.rules)
            verdicts.append({**result, "detector": self.detector.label, "detections": compact})
        if self.kept is not None:
            self.kept.put(zip(keys, verdicts, strict=True))
        return verdicts, False

    def _detected(self, batch: Sequence[Record]) -> Iterator[tuple[Record, list[Detected], Colors | None]]:
        """Each record with its objects, and what tells their colours; None where they carry them."""
        paths = [Path(record["path"]) for record in batch]
        if self.file is not None:
            known = [self.file.get(path) for path in paths]
            # Where one is missing, all are detected anew: images of a batch round together.
            if all(map(_is_whole, known, batch)):
                self.reused += len(batch)
                yield from ((record, found or [], None) for record, found in zip(batch, known, strict=True))
                return
        images = [read_image(path) for path in paths]
        if not self.checked:
            ensure_checked(self.detector, self.tell)
            self.checked = True
        detected = detect_batch(self.detector, images, batch)
        tellers = [classifier_of(self.detector, image) for image in images]
        if self.file is None:
            yield from zip(batch, detected, tellers, strict=True)
            return
        colored = list(map(_with_colors, detected, batch, tellers))
        self.file.put(zip(paths, [image.shape[:2] for image in images], colored, strict=True))
        yield from ((record, objects, None) for record, objects in zip(batch, colored, strict=True))


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
