"""Images are written by a thread of their own, while the next ones are drawn."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Generic, TypeVar

__all__ = ["Writer"]

Item = TypeVar("Item")
Result = TypeVar("Result")

# Batches that wait for the disk beside the one that is being written. A kill loses them.
_WAITING = 1
# Seconds that the first batch waits for its own write, and the part of the time since the last batch that the others wait.
# A slow batch comes out at once, rather than after the next one, and a slow disk costs no more than this.
_FIRST, _PATIENCE = 1.0, 0.05


class Writer(Generic[Item, Result]):
    """Writes batches in order, and gives the result that belongs to each once it is on disk.

    It is a context manager. At its end, also after an error, the batches that were handed in are written.

    Args:
        write: writes a batch; it is called in the thread.
    """

    def __init__(self, write: Callable[[Sequence[Item]], None]) -> None:
        self._write = write
        self._waiting: queue.Queue[tuple[Sequence[Item], Result] | None] = queue.Queue(_WAITING)
        self._done: deque[Result] = deque()
        self._error: BaseException | None = None
        self._unfinished = 0  # counted by the caller's thread: batches whose result it does not have yet
        self._thread: threading.Thread | None = None
        self._idle = threading.Event()  # all that was handed in is written
        self._last = time.monotonic()

    def __enter__(self) -> Writer[Item, Result]:
        return self

    def put(self, items: Sequence[Item], result: Result) -> Iterator[Result]:
        """Hand in a batch; waits while others wait. Yields results whose batches are on disk, in order.

        Raises:
            BaseException: an earlier batch could not be written. The results before it were yielded.
        """
        self._unfinished += 1
        if not items and self._unfinished == 1:
            self._done.append(result)
        else:
            patience = _PATIENCE * (time.monotonic() - self._last)
            if self._thread is None:
                patience = _FIRST
                self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
                self._thread.start()
            self._idle.clear()
            self._waiting.put((items, result))
            self._idle.wait(patience)
        self._last = time.monotonic()
        yield from self._finished()

    def rest(self) -> Iterator[Result]:
        """Waits for all batches. Yields and raises as `put`."""
        self._end()
        yield from self._finished()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _finished(self) -> Iterator[Result]:
        failed = self._error  # before the results: those of earlier batches are there then
        while self._done:
            self._unfinished -= 1
            yield self._done.popleft()
        if failed is not None:
            raise failed

    def _end(self) -> None:
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (batch := self._waiting.get()) is not None:
            items, result = batch
            try:
                if items and self._error is None:
                    self._write(items)
            except BaseException as error:
                self._error = error
            if self._error is None:
                self._done.append(result)
            if self._waiting.empty():
                self._idle.set()
