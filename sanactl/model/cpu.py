"""What torch on a CPU does not do by itself: keep memory between steps, compute alike on any number of cores, and keep
its pace beside other work."""

from __future__ import annotations

import ctypes
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import torch

__all__ = ["ONE_THREAD_PARAMETERS", "Workers", "keep_freed_memory", "one_thread_each", "single_threaded"]

Piece = TypeVar("Piece")
Result = TypeVar("Result")

# Below this a CPU computes several pieces of work at once, each on one thread, rather than one on all.
ONE_THREAD_PARAMETERS = 100_000_000

# malloc.h: from how many free bytes on memory goes back to the kernel, and from what size on it is mapped separately.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Lets glibc's malloc keep what is freed, so that the next step finds its tensors' pages in place.

    By default every tensor of more than 128 KiB to 32 MiB is mapped anew and given back when freed: the kernel then
    clears the same pages at every step. Training the built-in base, this took 10,000 page faults a step down to 17 and
    0.066 s a step to 0.052. The price is that the process stays as large as it ever was. Other C libraries (macOS,
    musl) are left as they are.

    Returns:
        whether malloc took the advice.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    # Some versions of glibc take no threshold above 32 MiB.
    mapped = mallopt(_M_MMAP_THRESHOLD, 1 << 30) or mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    return bool(mapped and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


@contextmanager
def single_threaded() -> Iterator[int]:
    """Inside, every torch operation runs on one thread; yields how many threads there were.

    How torch divides an operation among threads decides how it rounds (oneDNN picks another convolution for another
    number of threads). Where work comes in many equal pieces, one thread a piece gives the same bits on any machine
    of a kind, and keeps the cores as busy.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def one_thread_each(device: torch.device, parameters: int) -> bool:
    """Whether a model of so many parameters computes each piece of its work on one thread on this device."""
    return device.type == "cpu" and parameters < ONE_THREAD_PARAMETERS


class Workers:
    """Threads for work that comes in pieces: as many as torch has, each with a whole piece, in it on one thread.

    Two things follow. The result rounds alike for any number of threads (`single_threaded`). And no thread waits for
    another within a piece: where torch divides each operation among threads, every one ends in a wait for the slowest,
    and one thread that has to share its core with other work holds up all, a thousand times a second. A training step
    of the built-in base then took up to 40 times as long.

    Used as a context; outside, torch has its threads again.
    """

    def __enter__(self) -> Workers:
        self._stack = ExitStack()
        self.count = self._stack.enter_context(single_threaded())
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="piece") if self.count > 1 else None
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            # After an error nobody waits for what is still computed; it ends with its piece.
            self._pool.shutdown(wait=error[0] is None, cancel_futures=True)
        self._stack.close()

    def map(
        self, function: Callable[[Piece], Result], pieces: Iterable[Piece], *, at_once: int | None = None
    ) -> Iterator[Result]:
        """The results in the order of the pieces, which are taken as they are needed.

        Args:
            function: called in a worker, where gradients are on, and no inference mode or autocast of the caller holds.
            at_once: the most pieces that are computed or waiting to be taken at one time; by default one more than
                there are threads.
        """
        window = min(self.count + 1, self.count + 1 if at_once is None else at_once)
        if self._pool is None or window < 2:
            yield from map(function, pieces)
            return
        ahead: deque[Future[Result]] = deque()
        try:
            for piece in pieces:
                if len(ahead) == window:
                    yield ahead.popleft().result()
                ahead.append(self._pool.submit(function, piece))
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
