"""`progress=True`: a bar of tqdm's, which terminals, logs and notebooks show alike."""

from __future__ import annotations

import sys
from typing import Any

from sanactl.files.progress import Progress

__all__ = ["Bar"]


class Bar(Progress):
    """One bar on stderr for each piece of work, with the fields that it gives beside it."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._kept: str | None = None

    def start(self, total: int | None, what: str, *, done: int = 0) -> None:
        from tqdm import tqdm

        self.close()
        self._bar = tqdm(total=total, desc=what, initial=done, unit_scale=total is not None and total > 10**6)

    def advance(self, count: int = 1, **fields: str) -> None:
        if self._bar is not None:
            if fields:
                self._bar.set_postfix(fields, refresh=False)
            self._bar.update(count)

    def note(self, line: str) -> None:
        from tqdm import tqdm

        tqdm.write(line, file=None if self._bar is None else self._bar.fp)

    def keeps(self, what: str | None) -> None:
        self._kept = what
        self._tell()

    def close(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()
        self._tell()

    def _tell(self) -> None:
        """After an interrupt, say once what is kept."""
        if self._kept is not None and isinstance(sys.exc_info()[1], KeyboardInterrupt):
            self.note(f"stopped; {self._kept}, and the same call goes on from there")
            self._kept = None
