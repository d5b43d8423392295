"""A detector with GenEval's rules, as a judge: no judge can do better.

Its verdicts are the labels themselves, so a score of images that it picked says what best-of-N could give, and not
what a judge gives. Records carry its name for that reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sanactl.judging.protocol import Pair
from sanactl.judging.tournament import Verdict, beats
from sanactl.scoring.detectors.batch import check_classes, classifier_of, detect_batch, facts_of
from sanactl.scoring.detectors.check import ensure_checked
from sanactl.scoring.detectors.protocol import Detected
from sanactl.scoring.detectors.registry import open_detector
from sanactl.scoring.geneval.rules import check_record, score_image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["OracleJudge"]

# The smallest probability of an answer, so that both logarithms are finite.
_LEAST = 1e-4


class OracleJudge:
    """Judges with a detector; the records need GenEval's `tag` and `include`.

    Args:
        detector: a name of `sanactl.scoring.detectors.registry.DETECTORS`; "" for the built-in world's.
        device, dtype: of the detector.
        colors: what tells the colours of objects, for a detector that finds none: a CLIP, a folder or a Hub id, or "off".

    Raises:
        UsageError: there is no detector, device or dtype of that name, or the detector tells colours itself.
        InputError: the detector's model cannot be used.
    """

    reads = ("tag", "include", "exclude")
    gives_labels = True

    def __init__(
        self,
        detector: str = "",
        *,
        device: str | None = None,
        dtype: str | None = None,
        colors: str | None = None,
    ) -> None:
        self.name = f"oracle:{detector}" if detector else "oracle"
        self.detector = open_detector(detector or "shapes", device=device, dtype=dtype, colors=colors)
        self.identity = {"name": self.name, "detector": self.detector.label, "labels": self.detector.label}
        if self.detector.digest is not None:
            self.identity["digest"] = self.detector.digest
        self.identity |= facts_of(self.detector)

    def judge(self, images: Sequence[NDArray[np.uint8]], records: Sequence[dict[str, Any]]) -> list[Verdict]:
        """Yes where the rules say that the image is right.

        A right image's confidence grows with the score of the weakest object that it needs; a wrong one's falls with
        the number of its faults.

        Raises:
            InputError: a record is not in GenEval's form, its image not of a size that the detector takes, or the
                detector gives other numbers here than on a CPU in float64.
            UsageError: a prompt asks for a colour, and nothing tells colours.
        """
        for record in records:
            check_record(record)
            check_classes(self.detector, record)
        # A detector that computes wrongly on this device is refused here as in `eval geneval`.
        ensure_checked(self.detector)
        # A judge's batches are larger than a detector's.
        size = self.detector.batch_size
        found = [
            objects
            for start in range(0, len(images), size)
            for objects in detect_batch(
                self.detector, images[start : start + size], records[start : start + size]
            )
        ]
        return [self._verdict(*each) for each in zip(images, records, found, strict=True)]

    def choose(self, pairs: Sequence[Pair], records: Sequence[dict[str, Any]]) -> list[Verdict]:
        """The image of the better verdict, in whatever order; equals have one half each."""
        images = [image for pair in pairs for image in pair]
        found = self.judge(images, [record for record in records for _ in range(2)])
        return [_choice(*found[place : place + 2]) for place in range(0, len(found), 2)]

    def _verdict(self, image: NDArray[np.uint8], record: dict[str, Any], found: list[Detected]) -> Verdict:
        result = score_image(found, record, colors=classifier_of(self.detector, image))
        if result["correct"]:
            p = 0.5 + 0.5 * _weakest(found, record)
        else:
            clauses = len(record["include"]) + len(record.get("exclude") or ())
            faults = result["reason"].count("\n") + 1
            p = 0.5 * (1 - min(faults, clauses) / (clauses + 1))
        p = min(max(p, _LEAST), 1 - _LEAST)
        return Verdict("yes" if result["correct"] else "no", math.log(p), math.log(1 - p))


def _choice(one: Verdict, other: Verdict) -> Verdict:
    p = 1 - _LEAST if beats(one, other) else _LEAST if beats(other, one) else 0.5
    return Verdict.of(math.log(p), math.log(1 - p))


def _weakest(found: list[Detected], record: dict[str, Any]) -> float:
    """The lowest score among the objects that an image's prompt asks for."""
    needed = [1.0]
    for clause in record["include"]:
        scores = sorted((d.score for d in found if d.name == clause["class"]), reverse=True)
        needed += scores[: clause["count"]]
    return float(min(needed))
