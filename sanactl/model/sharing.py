"""Work of one stream on several processes (`torchrun`, `accelerate launch`): the first reads and writes, all of them compute.

The first process reads the records and makes the parts of one process (batches of images). It hands out as many parts as
there are processes, the i-th to process i, and waits for all answers. So the work is divided by its place alone, the
answers are those of one process, and the first process alone writes. A kill loses at most the parts that are being
computed. Only records and answers are sent; each process reads its images itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from sanactl.errors import SanactlError
from sanactl.model.processes import broadcast, gather, is_one_of_several, open_processes
from sanactl.records.shards import Shard

__all__ = ["ShardDone", "at_once", "compute_all", "leading", "on_each", "only", "serve", "share"]

T = TypeVar("T")
Work = TypeVar("Work")
Answer = TypeVar("Answer")

_leads = False  # whether the other processes are in `serve`
_only: Shard | None = None  # see `only`


class ShardDone(Exception):
    """`share` has answered a job's parts. There is nothing to be made of them before the other jobs' parts are there.

    Attributes:
        own, known: the job's parts; how many of them an earlier run had answered.
        parts: of all jobs.
    """

    def __init__(self, own: int, known: int, parts: int) -> None:
        super().__init__(f"{own} of {parts} parts")
        self.own, self.known, self.parts = own, known, parts


@contextlib.contextmanager
def only(shard: Shard | None) -> Iterator[None]:
    """In the body, `share` answers the parts of one of several jobs, keeps the answers and raises `ShardDone`."""
    global _only
    _only = shard
    try:
        yield
    finally:
        _only = None


def at_once() -> int:
    """How many parts are best handed out at once: one for each process that waits for work."""
    return open_processes().num_processes if _leads else 1


def serve(compute: Callable[[Any], Any]) -> None:
    """Computes what the first process hands out, until it is done. For each of the other processes.

    Args:
        compute: the answer to a part of the work; it is the function that the first process calls, too.

    Raises:
        SystemExit: the first process has failed, with its exit code; it says why.
    """
    number = open_processes().process_index
    while True:
        parts: Any = broadcast(None)
        if parts is None:
            return
        if isinstance(parts, int):
            raise SystemExit(parts)
        gather(_tried(partial(compute, parts[number])) if number < len(parts) else None)


@contextlib.contextmanager
def leading() -> Iterator[None]:
    """The first process's work, in which it may hand out parts. At its end, or where it fails, the others are told."""
    global _leads
    if not is_one_of_several():
        yield
        return
    _leads = True
    try:
        yield
    except SanactlError as error:
        broadcast(error.exit_code)
        raise
    except BrokenPipeError:
        broadcast(0)  # the reader has all it wanted, which is no failure
        raise
    finally:
        _leads = False
    broadcast(None)


def compute_all(parts: Sequence[Work], compute: Callable[[Work], Answer]) -> list[Answer | SanactlError]:
    """The answer to each of at most `at_once()` parts, or the error of the process that has tried it."""
    if not _leads:
        return [_tried(partial(compute, part)) for part in parts]
    broadcast(list(parts))
    found: list[Answer | SanactlError] = gather(_tried(partial(compute, parts[0])))
    return found[: len(parts)]


def share(
    stream: Iterable[Work],
    compute: Callable[[Work], Answer],
    *,
    known: Callable[[Work], Answer | None],
    keep: Callable[[Work, Answer], None],
) -> Iterator[tuple[Work, Answer, bool]]:
    """Answers a stream of parts, in order.

    Args:
        stream: parts; they must be such as can be sent to another process.
        compute: what answers a part, in any process.
        known: the answer of an earlier run, or None.
        keep: called with each new answer as soon as it is there, in the first process.

    Yields:
        (part, answer, whether an earlier run has found it).

    Raises:
        SanactlError: that of the first part that failed, after the answers before it. What the other processes have found
            meanwhile is kept.
        ShardDone: in the body of `only`, after the job's parts.
    """
    if _only is not None:
        _answer_own(stream, _only, compute, known, keep)
    yield from _shared(stream, compute, known, keep)


def _answer_own(
    stream: Iterable[Work],
    shard: Shard,
    compute: Callable[[Work], Answer],
    known: Callable[[Work], Answer | None],
    keep: Callable[[Work, Answer], None],
) -> None:
    """Answers every N-th part. The parts are those of a run for all of them, so that the answers are, too."""
    count = 0

    def mine() -> Iterator[Work]:
        nonlocal count
        for number, part in enumerate(stream):
            count += 1
            if shard.takes(number):
                yield part

    earlier = [before for _, _, before in _shared(mine(), compute, known, keep)]
    raise ShardDone(len(earlier), sum(earlier), count)


def _shared(
    stream: Iterable[Work],
    compute: Callable[[Work], Answer],
    known: Callable[[Work], Answer | None],
    keep: Callable[[Work, Answer], None],
) -> Iterator[tuple[Work, Answer, bool]]:
    waiting: list[tuple[Work, Answer | None]] = []
    missing = 0
    for part in stream:
        answer = known(part)
        waiting.append((part, answer))
        missing += answer is None
        if missing == at_once() or not missing:
            yield from _answered(waiting, compute, keep)
            waiting, missing = [], 0
    if waiting:
        yield from _answered(waiting, compute, keep)


def _answered(
    waiting: Sequence[tuple[Work, Answer | None]],
    compute: Callable[[Work], Answer],
    keep: Callable[[Work, Answer], None],
) -> Iterator[tuple[Work, Answer, bool]]:
    unknown = [part for part, answer in waiting if answer is None]
    found = compute_all(unknown, compute) if unknown else []
    for part, result in zip(unknown, found, strict=True):
        if not isinstance(result, SanactlError):
            keep(part, result)
    new = iter(found)
    for part, answer in waiting:
        if answer is not None:
            yield part, answer, True
            continue
        result = next(new)
        if isinstance(result, SanactlError):
            raise result
        yield part, result, False


def on_each(work: Callable[[], T]) -> T:
    """The result of `work` on each process, if all of them have one.

    If it raises a `SanactlError` on one, all processes end with its exit code, and only the first prints the error.
    """
    if not is_one_of_several():
        return work()
    open_processes()  # before a device is chosen
    result = _tried(work)
    # Only errors are sent: a result stays on its process.
    errors = [
        error for error in gather(result if isinstance(result, SanactlError) else None) if error is not None
    ]
    if errors:
        raise errors[0] if open_processes().is_main_process else SystemExit(errors[0].exit_code)
    assert not isinstance(result, SanactlError)
    return result


def _tried(work: Callable[[], T]) -> T | SanactlError:
    try:
        return work()
    except SanactlError as error:
        return error
