"""`judge` on several processes (`torchrun`, `accelerate launch`): the first reads, writes and remembers, all of them judge.

The first process reads the records and makes the batches of one process. It hands out as many batches as there are
processes, the i-th to process i, and waits for all verdicts. So the work is divided by its place alone, the verdicts are
those of one process, and the first process alone writes records and verdicts. A kill loses at most the batches that are
being judged. Only keys, records and verdicts are sent; each process reads its images itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from sanactl.errors import SanactlError
from sanactl.judging.cache import Question, VerdictCache
from sanactl.judging.protocol import Judge
from sanactl.judging.tournament import Verdict
from sanactl.model.processes import broadcast, gather, is_one_of_several, open_processes

__all__ = ["SharedCache", "leading", "on_each", "serve"]

T = TypeVar("T")


class SharedCache(VerdictCache):
    """The first process's verdicts. The other processes are in `serve` while it asks."""

    @property
    def at_once(self) -> int:
        return open_processes().num_processes

    def ask_all(self, batches: Sequence[Sequence[Question]]) -> list[list[Verdict]]:
        missing = [self.missing(batch) for batch in batches]
        # The others read the images' bytes themselves.
        broadcast([([replace(q, data=None) for q in b], m) for b, m in zip(batches, missing, strict=True)])
        fault: SanactlError | None = None
        # One by one: what the others have found is kept where one of them fails.
        found = gather(_tried(partial(self.answers, batches[0], missing[0])))
        for batch, some, (answers, error) in zip(batches, missing, found, strict=False):
            if answers is not None:
                self.keep(batch, some, answers)
            fault = fault or error
        if fault is not None:
            raise fault
        return [self.verdicts_of(batch) for batch in batches]


def serve(judge: Judge) -> None:
    """Judges what the first process hands out, until it is done. For each of the other processes.

    Raises:
        SystemExit: the first process has failed, with its exit code; it says why.
    """
    cache, number = VerdictCache(None, judge), open_processes().process_index
    while True:
        work: Any = broadcast(None)
        if work is None:
            return
        if isinstance(work, int):
            raise SystemExit(work)
        part = work[number] if number < len(work) else ([], [])
        gather(_tried(partial(cache.answers, *part)))


@contextlib.contextmanager
def leading() -> Iterator[None]:
    """The first process's work. At its end, or where it fails, the others are told."""
    try:
        yield
    except SanactlError as error:
        if is_one_of_several():
            broadcast(error.exit_code)
        raise
    if is_one_of_several():
        broadcast(None)


def on_each(work: Callable[[], T]) -> T:
    """The result of `work` on each process, if all of them have one.

    If it raises a `SanactlError` on one, all processes end with its exit code, and only the first prints the error.
    """
    if not is_one_of_several():
        return work()
    open_processes()  # before a device is chosen
    result, own = _tried(work)
    errors = [error for _, error in gather((None, own)) if error is not None]
    if errors:
        raise errors[0] if open_processes().is_main_process else SystemExit(errors[0].exit_code)
    return result  # type: ignore[return-value]


def _tried(work: Callable[[], T]) -> tuple[T | None, SanactlError | None]:
    try:
        return work(), None
    except SanactlError as error:
        return None, error
