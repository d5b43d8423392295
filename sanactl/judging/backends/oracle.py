"""The built-in world's detector with GenEval's rules, as a judge: the ceiling that a judge can reach.

Its verdicts are the labels themselves, so a score of images that it picked says what best-of-N could give, and not
what a judge gives. Records carry its name for that reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError
from sanactl.judging.tournament import Verdict
from sanactl.scoring.geneval.rules import Detected, check_record, get_detector, score_image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["OracleJudge"]

# Never quite sure, so that both logarithms are finite.
_DOUBT = 1e-4


class OracleJudge:
    """Judges with a detector of `sanactl.scoring.geneval.rules`; the records need GenEval's `tag` and `include`.

    Raises:
        UsageError: there is no detector of that name.
    """

    def __init__(self, detector: str = "shapes") -> None:
        self.name = "oracle"
        self.detector = get_detector(detector)
        self.identity = {"name": self.name, "detector": self.detector.label}

    def judge(self, images: Sequence[NDArray[np.uint8]], records: Sequence[dict[str, Any]]) -> list[Verdict]:
        """Yes where the rules say that the image is right.

        A right image's confidence grows with the score of the weakest object that it needs; a wrong one's falls with
        the number of its faults.

        Raises:
            InputError: a record is not in GenEval's form, or its image not of a size that the detector takes.
        """
        return [self._one(image, record) for image, record in zip(images, records, strict=True)]

    def _one(self, image: NDArray[np.uint8], record: dict[str, Any]) -> Verdict:
        check_record(record)
        try:
            found = self.detector.detect(image)
        except ValueError as error:  # too small, or too large
            raise InputError(f"{record.get('path')}: {error}") from None
        classify = self.detector.colors
        colors = None if classify is None else lambda objects, name: classify(image, objects, name)
        result = score_image(found, record, colors=colors)
        if result["correct"]:
            p = 0.5 + 0.5 * _weakest(found, record)
        else:
            clauses = len(record["include"]) + len(record.get("exclude") or ())
            faults = result["reason"].count("\n") + 1
            p = 0.5 * (1 - min(faults, clauses) / (clauses + 1))
        p = min(max(p, _DOUBT), 1 - _DOUBT)
        return Verdict("yes" if result["correct"] else "no", math.log(p), math.log(1 - p))


def _weakest(found: list[Detected], record: dict[str, Any]) -> float:
    """The lowest score among the objects that an image's prompt asks for."""
    needed = [1.0]
    for clause in record["include"]:
        scores = sorted((d.score for d in found if d.name == clause["class"]), reverse=True)
        needed += scores[: clause["count"]]
    return float(min(needed))
