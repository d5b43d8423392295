"""The verdicts in a folder's memory, one judge's at a time.

They are in `.sanactl/verdicts/` (`sanactl.records.kept_rows`), by the judge's identity (weights, dtype, dialogue...) and
sanactl's version.

A line of these files holds the verdicts of a whole batch. So the batches of a run that goes on are those of an
undisturbed run, since a batch is known as a whole or not at all. A verdict is used to its last digit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sanactl.files.content import json_digest
from sanactl.judging.protocol import Judge
from sanactl.judging.tournament import Verdict
from sanactl.records.fields import FIELDS, LOGARITHM
from sanactl.records.kept_rows import KeptRows, bound_files
from sanactl.version import __version__

__all__ = ["FOLDER", "MAX_BYTES", "KeptVerdicts", "bound"]

FOLDER = Path(".sanactl") / "verdicts"
# A verdict takes about 100 bytes: 2.5 million of all judges together. The files that were used least recently go first.
MAX_BYTES = 256 << 20
_MASS = FIELDS["image"]["answer_mass"]


class KeptVerdicts:
    """The verdicts of one judge: those of earlier runs, and this run's.

    Args:
        place: the folder of the files; None where no file is written.
        judge: an opened judge.
        ask_again: do not use verdicts of earlier runs.
        tell: called with a line for the user, once, if verdicts cannot be kept.
    """

    def __init__(
        self, place: Path | None, judge: Judge, ask_again: bool, tell: Callable[[str], None]
    ) -> None:
        self._place, self._tell = place, tell
        self._reads: Sequence[str] | None = getattr(judge, "reads", None)
        by = json_digest({"judge": judge.identity, "version": __version__})[:16]
        self._rows = KeptRows(place, by, _row, ask_again)

    def key(self, content: str, record: Mapping[str, Any]) -> bytes:
        """The key of the verdict on an image with this digest."""
        names = sorted(record) if self._reads is None else self._reads
        read = {name: record[name] for name in names if name in record and name != "path"}
        return bytes.fromhex(json_digest([content, read])[:32])

    def get(self, key: bytes) -> Verdict | None:
        values = self._rows.get(key)
        return None if values is None else Verdict(*values)

    def is_earlier(self, key: bytes) -> bool:
        return self._rows.is_earlier(key)

    def put(self, verdicts: Sequence[tuple[bytes, Verdict]]) -> None:
        """Keeps the verdicts of a batch, in one write."""
        rows = {key: (v.verdict, v.yes_logprob, v.no_logprob, v.mass, v.details) for key, v in verdicts}
        try:
            self._rows.put(rows)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            self._tell(f"verdicts cannot be kept for later runs ({self._place}: {reason})")


def _row(row: Sequence[Any]) -> tuple[Any, ...]:
    """Raises ValueError or TypeError unless it is a verdict."""
    verdict, yes, no, mass, details = [*row, None, None][:5]
    if verdict not in ("yes", "no") or not (LOGARITHM.fits(yes) and LOGARITHM.fits(no)):
        raise ValueError("no verdict")
    if not (mass is None or _MASS.fits(mass)) or not (details is None or isinstance(details, dict)):
        raise ValueError("no verdict")
    return verdict, yes, no, mass, details


def bound(place: Path) -> None:
    """Removes the files that were used least recently, above `MAX_BYTES` in all."""
    bound_files(place, MAX_BYTES)
