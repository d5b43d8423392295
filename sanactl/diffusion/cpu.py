"""Two things that torch on a CPU does not do by itself: keep memory between steps, and compute alike on any number of
cores."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["keep_freed_memory", "single_threaded"]

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
