"""Stopping long work between two steps and not within one."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["StopRequest"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While it is open, Ctrl-C and SIGTERM set `asked` in place of raising.

    An optimizer's step that is cut in two leaves weights that no undisturbed run ever has, so a loop looks at `asked`
    between its steps. Who presses Ctrl-C again means it: the second signal sets `insisted` and raises
    KeyboardInterrupt at once.

    Signals reach a process's main thread only; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.asked = self.insisted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self.insisted = True
            raise KeyboardInterrupt
        self.asked = True
