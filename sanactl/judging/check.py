"""What every judge's verdicts must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sanactl.errors import InputError
from sanactl.judging.tournament import Verdict
from sanactl.records.fields import LOGARITHM

__all__ = ["check_verdicts"]


def check_verdicts(name: str, verdicts: Sequence[Verdict], records: Sequence[Mapping[str, Any]]) -> None:
    """Refuses log-probabilities that are NaN, infinite or above zero.

    Args:
        name: the judge's.
        verdicts, records: one for each image.

    Raises:
        InputError: names the judge and the image.
    """
    for v, record in zip(verdicts, records, strict=True):
        if not (LOGARITHM.fits(float(v.yes_logprob)) and LOGARITHM.fits(float(v.no_logprob))):
            raise InputError(
                f"judge {name} gives NaN or no log-probability for {record.get('path', 'an image')}:"
                f" yes {v.yes_logprob}, no {v.no_logprob}",
                hint="run it in float32, or take another judge",
            )
