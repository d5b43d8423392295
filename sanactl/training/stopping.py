"""Stopping long work between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["StopRequest"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While it is open, Ctrl-C and SIGTERM are noted in place of raising.

    An optimizer's step that is interrupted leaves weights that no undisturbed run has, so the loop asks between its
    steps. A second Ctrl-C sets `insisted` and raises KeyboardInterrupt at once. A second SIGTERM does not: launchers
    and schedulers send it to the process and to its group.

    Signals reach a process's main thread only; elsewhere this does nothing.

    Attributes:
        interrupted: there was a Ctrl-C.
        terminated: there was a SIGTERM: the machine is needed elsewhere, and the work will go on later.
    """

    def __init__(self) -> None:
        self.interrupted = self.terminated = self.insisted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            self.terminated = True
        elif self.interrupted or self.terminated:
            self.insisted = True
            raise KeyboardInterrupt
        else:
            self.interrupted = True
