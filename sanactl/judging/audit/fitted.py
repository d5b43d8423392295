"""The calibration of each judge on all labelled images."""

from __future__ import annotations

from collections.abc import Sequence

from sanactl.errors import InputError
from sanactl.judging.audit.figures import log_odds
from sanactl.judging.audit.gather import Judged
from sanactl.judging.calibration import Calibration, fit, prompts_digest

__all__ = ["fit_all"]


def fit_all(judged: Sequence[Judged]) -> list[Calibration]:
    """One calibration for each judge; the mean of several judges has none of its own.

    Raises:
        InputError: a judge's verdicts are of several weights or dialogues; or all its images are right, or all wrong.
    """
    found = []
    for one in judged:
        if any("judges" in settings for settings in one.settings):
            continue
        digests = {str(settings.get("digest", "")) for settings in one.settings}
        if len(digests) > 1:
            raise InputError(
                f"the verdicts of judge {one.name} are of several weights or dialogues, and a calibration is of one",
                hint="give the records of one of them",
            )
        if one.truth.all() or not one.truth.any():
            kind = "right" if one.truth.all() else "wrong"
            raise InputError(
                f"all {len(one.truth):,} labelled images of judge {one.name} are {kind}, and a calibration needs images"
                " of both kinds",
                hint="judge and label more images",
            )
        slope, intercept = fit(log_odds(one), one.truth)
        found.append(
            Calibration(
                slope,
                intercept,
                one.name,
                digests.pop(),
                prompts=len(one.prompts),
                images=len(one.truth),
                prompts_digest=prompts_digest(one.prompts),
            )
        )
    if not found:
        raise InputError("no verdict of a single judge in these records, and a calibration is of one")
    return found
