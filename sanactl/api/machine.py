"""`sanactl.doctor`: what this machine can do, and whether its results can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from sanactl.api.inputs import DeviceLike, as_progress, device_name
from sanactl.files.progress import Progress
from sanactl.records.types import ScoreRecord

__all__ = ["doctor"]


def doctor(
    only: Sequence[str] | None = None,
    *,
    device: DeviceLike | None = None,
    progress: bool | Progress = False,
) -> list[ScoreRecord]:
    """Checks this machine: versions, devices, disk, and computations whose results are known.

    Args:
        only: names of checks ("dtypes", "sample"); None is all of them.
        device: the device to check; None is all devices, and models run on the best one.
        progress: True for the name of the check that is made.

    Returns:
        a score record for each finding: `check`, `of`, `state` ("ok", "warning" or "wrong"), `says`, `value` (the
        measured number, or None) and `seconds`. Where one is wrong, results of this machine cannot be trusted.

    Raises:
        UsageError: no such check, or this machine has no such device.

    Source: none; the results that are known were stored with the package.
    """
    from sanactl.bench.doctor.finding import Place
    from sanactl.bench.doctor.run import chosen_checks, examine

    found = examine(Place(device_name(device)), chosen_checks(only or ()), as_progress(progress))
    return cast("list[ScoreRecord]", list(found))
