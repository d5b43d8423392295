"""`progress=True`: a bar of tqdm's, which terminals, logs and notebooks show alike."""

from __future__ import annotations

from typing import Any

from sanactl.files.progress import Progress

__all__ = ["Bar"]


class Bar(Progress):
    """One bar on stderr for each piece of work, with the fields that it gives beside it."""

    def __init__(self) -> None:
        self._bar: Any = None

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

    def close(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()
