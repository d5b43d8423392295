"""Reading images ahead of training: torch's DataLoader over positions of the stream, in an order that is known beforehand."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from sanactl.data.sources import Fetched, TableSource
from sanactl.data.streams import StreamTable
from sanactl.errors import SanactlError, TrainingError

__all__ = ["PositionDataset", "ReadAhead", "default_workers"]

# A GPU that trains the 1.6B model at 1024 px takes a few images a second, one process decodes about ten.
MOST_WORKERS = 4
# Parts that each process reads ahead of the one that is wanted.
AHEAD = 2


def default_workers(device: torch.device, processes: int = 1) -> int:
    """How many processes read images beside one that trains: 4 on a GPU if there are cores for them, none on a CPU,
    where they would take the cores that training uses."""
    if device.type == "cpu":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(MOST_WORKERS, cores // max(processes, 1) - 1))


@dataclass(frozen=True)
class _Fault:
    """An error of another process. torch would raise it here with a page of text."""

    kind: type[SanactlError]
    message: str
    hint: str | None


class _Batch(NamedTuple):  # whose tensors DataLoader pins
    images: torch.Tensor | None
    captions: list[str]
    skipped: list[tuple[str, str | None]]
    fault: _Fault | None


class PositionDataset(Dataset["Fetched | _Fault"]):
    """Training data by position of its stream, as a map-style dataset: the same example wherever it is read."""

    def __init__(self, source: TableSource) -> None:
        self.source = source

    def __getitem__(self, position: int) -> Fetched | _Fault:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> Sequence[Fetched | _Fault]:
        try:
            return self.source.fetch(positions)
        except SanactlError as error:
            return [_Fault(type(error), error.message, error.hint)]


class _Parts(Sampler[list[int]]):
    """Lists of positions, as a batch sampler."""

    def __init__(self, parts: Callable[[], Iterable[Sequence[int]]]) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[list[int]]:
        return (list(part) for part in self.parts())


class ReadAhead:
    """Batches of images and captions, read by other processes before they are asked for.

    Batches, skipped images and errors are those of `source.batch`. A batch that is not the next of the plan is read at
    once in this process.

    Args:
        source: images with captions. A stream is read by one process, which can only go forwards.
        plan: makes the lists of positions that will be asked for, in their order.
        workers: processes; at least one.
        pinned: whether batches lie in memory that a GPU copies from while it computes.

    Attributes:
        loader: torch's loader; each of its processes reads `AHEAD` batches ahead.

    Raises:
        TrainingError: of `batch`: one of the processes ended.
    """

    def __init__(
        self,
        source: TableSource,
        plan: Callable[[], Iterable[Sequence[int]]],
        *,
        workers: int,
        pinned: bool = False,
    ) -> None:
        self._source, self._plan = source, iter(_Parts(plan))
        self._next: list[int] | None = next(self._plan, None)
        # The tokenizers library warns of threads that a forked process has lost. These processes use none of it.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about more processes than cores, which the user may choose
            self.loader = DataLoader(
                PositionDataset(source),
                batch_sampler=_Parts(plan),
                num_workers=1 if isinstance(source.examples, StreamTable) else workers,
                prefetch_factor=AHEAD,
                collate_fn=_collate,
                worker_init_fn=_stay_out_of_signals,
                pin_memory=pinned,
                multiprocessing_context="fork",
            )
        others = multiprocessing.active_children()
        with warnings.catch_warnings(), _own_child_handler():
            warnings.simplefilter("ignore")
            self._batches: Any = iter(self.loader)
        self._workers = [p for p in multiprocessing.active_children() if p not in others]
        atexit.register(self.close)

    def batch(self, positions: Sequence[int]) -> tuple[torch.Tensor, list[str]]:
        """Images uint8 [B, height, width, 3] and B captions at these positions of the stream."""
        if list(positions) != self._next or self._batches is None:
            images, captions = self._source.batch(positions)
            return torch.from_numpy(images), captions
        self._next = next(self._plan, None)
        try:
            batch: _Batch = next(self._batches)
        except (
            RuntimeError
        ) as trouble:  # what DataLoader raises for a process that was killed, or lacks shared memory
            first = next(iter(str(trouble).splitlines()), "")
            raise TrainingError(
                f"a process that reads images ended: {first}",
                hint="--workers 0 reads them in the training process; /dev/shm may be too small",
            ) from None
        self._source.count_skipped(batch.skipped)
        if batch.fault is not None:
            raise batch.fault.kind(batch.fault.message, hint=batch.fault.hint)
        assert batch.images is not None, "what is not fetched is one bad image too many"
        return batch.images, batch.captions

    def close(self) -> None:
        """Ends the processes."""
        atexit.unregister(self.close)
        self._batches = None  # DataLoader tells them to end, and waits some seconds
        for worker in self._workers:
            if worker.is_alive():
                worker.kill()


@contextlib.contextmanager
def _own_child_handler() -> Iterator[None]:
    """Restores the handler of SIGCHLD. DataLoader's own raises an error in the middle of training when a process ends;
    without it the next batch raises one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before if before is not None else signal.SIG_DFL)


def _collate(fetched: Sequence[Fetched | _Fault]) -> _Batch:
    examples = [example for example in fetched if isinstance(example, Fetched)]
    fault = next((example for example in fetched if isinstance(example, _Fault)), None)
    images = [example.image for example in examples if example.image is not None]
    whole = len(images) == len(fetched)
    return _Batch(
        torch.from_numpy(np.stack(images)) if whole else None,
        [example.caption for example in examples],
        [line for example in examples for line in example.skipped],
        fault,
    )


def _stay_out_of_signals(worker: int) -> None:
    """Ignores Ctrl-C and SIGTERM, which terminals and schedulers send to all processes: the one that trains handles them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
