"""Several judges as one: the mean of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sanactl.judging.check import check_verdicts
from sanactl.judging.means import log_mean
from sanactl.judging.protocol import Judge, judge_flops
from sanactl.judging.tournament import Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["EnsembleJudge", "mean_verdict"]

_NOT_A_JUDGE = (
    "warning: {} gives the labels of eval geneval; with it among the judges, a score of the winners shows what the labels"
    " chose, not what the other judges would have chosen"
)


class EnsembleJudge:
    """Asks each judge about each image.

    Args:
        judges: at least two; their order does not change the verdicts, but that of the records' `verdicts`.
    """

    def __init__(self, judges: Sequence[Judge]) -> None:
        assert len(judges) > 1
        self.judges = list(judges)
        self.name = f"mean of {' and '.join(judge.name for judge in judges)}"
        notices = [n for judge in judges if (n := getattr(judge, "notice", ""))]
        notices += [_NOT_A_JUDGE.format(j.name) for j in judges if getattr(j, "gives_labels", False)]
        self.notice = "; ".join(notices) or None
        self.identity: Mapping[str, Any] = {"mean": [judge.identity for judge in judges]}

    def judge(self, images: Sequence[NDArray[np.uint8]], records: Sequence[dict[str, Any]]) -> list[Verdict]:
        """`mean_verdict` of the judges' verdicts on each image.

        Raises:
            InputError: one of the judges cannot take an image or a record, or gives NaN.
        """
        found = [judge.judge(images, records) for judge in self.judges]
        for judge, verdicts in zip(self.judges, found, strict=True):
            check_verdicts(judge.name, verdicts, records)
        return [self.combine(verdicts) for verdicts in zip(*found, strict=True)]

    def combine(self, verdicts: Sequence[Verdict]) -> Verdict:
        """The verdict on one image from those of the judges, in their order."""
        return mean_verdict([judge.name for judge in self.judges], verdicts)

    def flops(self, height: int, width: int) -> float | None:
        """The sum of the judges' FLOPs; None where those of one are not known."""
        counts = [judge_flops(judge, height, width) for judge in self.judges]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None


def mean_verdict(names: Sequence[str], verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict of the mean of P(yes) and the mean of P(no), with each judge's own in its `details`.

    Args:
        names: of the judges.
        verdicts: one of each.
    """
    of_each = [
        {
            "judge": name,
            "verdict": v.verdict,
            "yes_logprob": float(f"{v.yes_logprob:.9g}"),
            "no_logprob": float(f"{v.no_logprob:.9g}"),
            "answer_mass": float(f"{v.answer_mass:.9g}"),
        }
        for name, v in zip(names, verdicts, strict=True)
    ]
    yes, no = (log_mean([getattr(v, side) for v in verdicts]) for side in ("yes_logprob", "no_logprob"))
    mass = math.fsum(v.answer_mass for v in verdicts) / len(verdicts)
    return Verdict("yes" if yes > no else "no", yes, no, min(1.0, mass), {"verdicts": of_each})
