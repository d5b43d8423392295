"""A guard's findings in a folder's memory, `.sanactl/guards/`, so that no guard is asked twice about a prompt.

`sanactl.records.kept_rows` has the files. The threshold is not part of a finding: another one asks nothing again. A fault,
such as a lack of memory, is not kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sanactl.files.content import json_digest
from sanactl.prompts.guard.protocol import Finding, Guard
from sanactl.records.kept_rows import KeptRows, bound, owner_of

__all__ = ["FOLDER", "KeptFindings"]

FOLDER = Path(".sanactl") / "guards"


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
            bound(place)
        self._rows = KeptRows(
            place,
            owner_of({"guard": guard.identity}),
            _row,
            ask_again=ask_again,
            tell=tell,
            what="findings",
        )

    def get(self, prompt: str) -> Finding | None:
        values = self._rows.get(_key(prompt))
        return None if values is None else Finding(tuple(values[0]), mass=values[1])

    def is_earlier(self, prompt: str) -> bool:
        return self._rows.is_earlier(_key(prompt))

    def put(self, findings: Mapping[str, Finding]) -> None:
        """Keeps those without a fault, in one write."""
        self._rows.put(
            {
                _key(prompt): (list(found.probabilities), found.mass)
                for prompt, found in findings.items()
                if found.probabilities is not None
            }
        )


def _key(prompt: str) -> bytes:
    return bytes.fromhex(json_digest(prompt)[:32])


def _row(row: Any) -> tuple[bytes, tuple[Any, ...]]:
    """Raises ValueError or TypeError unless it is a key with a finding."""
    key, probabilities, mass = row
    if not isinstance(probabilities, list) or not probabilities:
        raise ValueError("no finding")
    if not all(type(p) in (float, int) and math.isfinite(p) and 0 <= p <= 1 for p in (*probabilities, mass)):
        raise ValueError("no finding")
    return bytes.fromhex(key), (probabilities, mass)
