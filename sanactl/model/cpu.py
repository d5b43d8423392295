"""Settings and threads for torch on a CPU: memory that is kept between steps, and results independent of the cores."""

from __future__ import annotations

import ctypes
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import torch

__all__ = [
    "ONE_THREAD_PARAMETERS", "Workers", "keep_freed_memory", "one_thread_each", "return_freed_memory", "single_threaded",
]  # fmt: skip

Piece = TypeVar("Piece")
Result = TypeVar("Result")

# A CPU computes several pieces of work of smaller models at once, each on one thread.
ONE_THREAD_PARAMETERS = 100_000_000

# malloc.h: the number of free bytes above which memory is returned to the kernel, and the size above which an
# allocation is mapped separately.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE = 1 << 20  # bytes


def keep_freed_memory() -> bool:
    """Make glibc's malloc keep freed memory for the next step.

    By default, memory of large tensors (above 128 KiB to 32 MiB) is returned to the kernel when freed, and the kernel
    clears the same pages at every step. In training of the built-in base, this function reduced page faults from 10,000
    to 17 a step, and a step from 0.066 s to 0.052 s. The process then never becomes smaller. Other C libraries (macOS,
    musl) are not changed.

    Returns:
        whether malloc accepted the settings.
    """
    # Some versions of glibc accept no threshold above 32 MiB.
    mapped = _set(_M_MMAP_THRESHOLD, 1 << 30) or _set(_M_MMAP_THRESHOLD, 32 << 20)
    return mapped and _set(_M_TRIM_THRESHOLD, 2**31 - 1)


def return_freed_memory() -> bool:
    """Make glibc's malloc map each tensor above 1 MiB by itself and return it to the kernel when it is freed.

    It is for large models. Their freed tensors would leave gaps between those that stay: a step of two blocks of the
    published width took 2.57 GB where the live tensors have 1.84 GB, and takes 1.97 GB with this function. That the kernel
    clears the pages again costs little beside the computation.

    Returns:
        whether malloc accepted the setting.
    """
    return _set(_M_MMAP_THRESHOLD, _LARGE)


def _set(number: int, value: int) -> bool:
    """Set one of malloc's numbers; whether it was accepted."""
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(number, value))
    except (AttributeError, OSError):
        return False


@contextmanager
def single_threaded() -> Iterator[int]:
    """Run torch operations of the body on one thread; yields the number of threads before.

    The rounding of an operation depends on its number of threads (oneDNN also chooses the convolution by it). With one
    thread for each of many equal pieces of work, all machines of a kind give the same bits and all cores are busy.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def one_thread_each(device: torch.device, parameters: int) -> bool:
    """Whether a model with this number of parameters uses one thread for each piece of work on this device."""
    return device.type == "cpu" and parameters < ONE_THREAD_PARAMETERS


class Workers:
    """As many threads as torch uses; each computes whole pieces of work, with single-threaded operations.

    This has two advantages. Results do not depend on the number of threads (`single_threaded`). And no thread waits for
    another within a piece. If torch divides each operation among threads, each operation waits for its slowest thread. If
    one core also had other work, a training step of the built-in base took up to 40 times as long.

    It is a context manager; at its end, torch has its threads again.
    """

    def __enter__(self) -> Workers:
        self._stack = ExitStack()
        self.count = self._stack.enter_context(single_threaded())
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="piece") if self.count > 1 else None
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            # After an error, running pieces are not waited for.
            self._pool.shutdown(wait=error[0] is None, cancel_futures=True)
        self._stack.close()

    def map(
        self, function: Callable[[Piece], Result], pieces: Iterable[Piece], *, at_once: int | None = None
    ) -> Iterator[Result]:
        """The results, in the order of the pieces. Pieces are taken from the iterator as they are needed.

        Args:
            function: called in a worker thread. There gradients are on; the caller's inference mode or autocast has no effect.
            at_once: the most pieces that are computed or wait as results at one time; default: the number of threads + 1.
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
