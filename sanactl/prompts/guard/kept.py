"""A guard's findings in a folder's memory, `.sanactl/guards/`, so that no guard is asked twice about a prompt.

`sanactl.records.kept_rows` has the files. The threshold is not part of a finding: another one asks nothing again. A fault,
such as a lack of memory, is not kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sanactl.files.content import json_digest
from sanactl.prompts.guard.protocol import Finding, Guard
from sanactl.records.kept_rows import KeptRows, bound_files
from sanactl.version import __version__

__all__ = ["FOLDER", "KeptFindings"]

FOLDER = Path(".sanactl") / "guards"
MAX_BYTES = 64 << 20  # of all guards together


class KeptFindings:
    """The findings of one guard: those of earlier runs, and this run's.

    Args:
        folder: findings are in its `.sanactl/guards/`; None, or a guard that is not to be kept: no file is written.
        guard: an opened guard.
        ask_again: do not use findings of earlier runs.
        tell: called with a line for the user, once, if findings cannot be kept.
    """

    def __init__(
        self,
        folder: Path | None,
        guard: Guard,
        *,
        ask_again: bool = False,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        place = None if folder is None or not guard.keeps else folder / FOLDER
        if place is not None:
            bound_files(place, MAX_BYTES)
        self._place, self._tell = place, tell
        source = json_digest({"guard": guard.identity, "version": __version__})[:16]
        self._rows = KeptRows(place, source, _row, ask_again)

    def get(self, prompt: str) -> Finding | None:
        values = self._rows.get(_key(prompt))
        return None if values is None else Finding(tuple(values[0]), mass=values[1])

    def is_earlier(self, prompt: str) -> bool:
        return self._rows.is_earlier(_key(prompt))

    def put(self, findings: Mapping[str, Finding]) -> None:
        """Keeps those without a fault, in one write."""
        rows = {
            _key(prompt): (list(found.probabilities), found.mass)
            for prompt, found in findings.items()
            if found.probabilities is not None
        }
        try:
            if rows:
                self._rows.put(rows)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            self._tell(f"findings cannot be kept for later runs ({self._place}: {reason})")


def _key(prompt: str) -> bytes:
    return bytes.fromhex(json_digest(prompt)[:32])


def _row(row: Sequence[Any]) -> tuple[Any, ...]:
    """Raises ValueError or TypeError unless it is a finding."""
    probabilities, mass = row
    if not isinstance(probabilities, list) or not probabilities:
        raise ValueError("no finding")
    if not all(type(p) in (float, int) and math.isfinite(p) and 0 <= p <= 1 for p in (*probabilities, mass)):
        raise ValueError("no finding")
    return probabilities, mass
