"""The calibration that a judge brings along: `calibration.json` in its folder, fitted on prompts for training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sanactl.errors import UsageError
from sanactl.judging.calibration import Calibration, calibrations_of, read_calibrations
from sanactl.judging.protocol import Judge

__all__ = ["CALIBRATION", "chosen_calibrations", "shipped_calibrations"]

CALIBRATION = "calibration.json"


def chosen_calibrations(
    judge: Judge, given: Sequence[Calibration], tell: Callable[[str], None] = lambda line: None
) -> list[Calibration]:
    """The calibration of each judge: those that the user gives, else those that the judges bring along.

    Args:
        judge, tell: see `shipped_calibrations`.
        given: of the user's files; empty for none.

    Returns:
        As `shipped_calibrations`.

    Raises:
        UsageError: a given one is of none of the judges, or a judge has none.
        InputError: the file in a judge's folder is damaged.
    """
    return calibrations_of(judge, given) if given else shipped_calibrations(judge, tell)


def shipped_calibrations(judge: Judge, tell: Callable[[str], None] = lambda line: None) -> list[Calibration]:
    """The calibration of each judge of a judge (of one, or of several), from their folders.

    Args:
        judge: an opened judge. A judge that was loaded from a folder has it as `folder`.
        tell: called with a line for the user if there is one that does not fit the judge.

    Returns:
        One for each judge in their order, or [] if one of them has none that fits.

    Raises:
        InputError: the file in a folder is damaged.
    """
    judges: Sequence[Judge] = getattr(judge, "judges", None) or [judge]
    found = []
    for each in judges:
        folder: Path | None = getattr(each, "folder", None)
        if folder is None or not (folder / CALIBRATION).is_file():
            return []
        # The same judge has other names where it is opened by other paths.
        found += [replace(c, judge=each.name) for c in read_calibrations(folder / CALIBRATION)[:1]]
    try:
        return calibrations_of(judge, found)
    except UsageError as error:
        tell(f"{error}; the judge's own probabilities are used")
        return []
