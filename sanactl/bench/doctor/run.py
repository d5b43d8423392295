"""Making the checks, one after the other, whatever happens in one of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from sanactl.bench.doctor.finding import Finding, Place, raised
from sanactl.bench.doctor.registry import CHECKS, Check
from sanactl.errors import UsageError
from sanactl.files.progress import SILENT, Progress
from sanactl.records.records import Record
from sanactl.records.scores import new_score

__all__ = ["METRIC", "chosen_checks", "examine"]

METRIC = "doctor"


def chosen_checks(names: Sequence[str]) -> list[str]:
    """The checks of these names, each once and in their own order; all of them where none is named.

    Raises:
        UsageError: there is no such check.
    """
    for name in names:
        if name not in CHECKS:
            near = get_close_matches(name, CHECKS, n=1)
            guess = f"did you mean {near[0]}? " if near else ""
            raise UsageError(
                f"--only {name}: there is no such check", hint=f"{guess}there are: {', '.join(CHECKS)}"
            )
    return [name for name in CHECKS if not names or name in names]


def examine(place: Place, names: Sequence[str], progress: Progress = SILENT) -> Iterator[Record]:
    """Make checks.

    Args:
        place: where.
        names: of `CHECKS`.

    Yields:
        A score record for each finding: `check`, `of`, `state` ("ok", "warning", "wrong"), `says`, `seconds` since the
        check began. `value` is the measured number, or None.

    Raises:
        UsageError: this machine has no device of the name that the user gave.
    """
    _check_name(place)
    for name in names:
        progress.doing(f"checking {name}")
        started = time.perf_counter()
        for finding in _findings(CHECKS[name], place):
            yield new_score(
                METRIC,
                finding.value,
                check=name,
                of=finding.of,
                state=finding.state,
                says=finding.says,
                seconds=round(time.perf_counter() - started, 3),
                **finding.facts,
            )
    progress.doing(None)


def _check_name(place: Place) -> None:
    """Raises for a device that is not here. If torch cannot be imported, the checks say so."""
    if place.named is not None:
        try:
            _ = place.device
        except (ImportError, OSError):
            return


def _findings(check: Check, place: Place) -> Iterator[Finding]:
    """What a check finds. An error in it is a finding, too.

    Every kind of error is caught here. The purpose of a check is to try whether other people's libraries, drivers and
    files work, and a fault in these raises anything: ImportError, OSError, RuntimeError, AttributeError of a library in
    the wrong version. The other checks do not depend on this one, and the user sees the error in the table.
    """
    try:
        findings = check.load()(place)
    except Exception as error:
        yield raised("error", error)
        return
    while True:
        # Not around the yield: an error of the reader is not a finding.
        try:
            finding = next(findings)
        except StopIteration:
            return
        except Exception as error:
            yield raised("error", error)
            return
        yield finding
