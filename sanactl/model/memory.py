"""What to do when a batch does not fit into memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

from sanactl.errors import InputError

__all__ = ["Fitting", "free_memory", "out_of_memory"]

Result = TypeVar("Result")


class Fitting:
    """Computes items in parts that memory is enough for. The size of a part is remembered between calls."""

    def __init__(self) -> None:
        self.size: int | None = None  # None until a part did not fit

    def run(
        self, count: int, compute: Callable[[slice], list[Result]], refusal: Callable[[str], InputError]
    ) -> list[Result]:
        """All items at once, or as many as memory has been enough for; half as many where it is not.

        Args:
            count: number of items.
            compute: the results of some of them.
            refusal: the error to raise where memory is not enough for one item; it is given the reason.

        Raises:
            InputError: `refusal`.
        """
        results: list[Result] = []
        while len(results) < count:
            first = len(results)
            size = min(self.size or count, count - first)
            try:
                results += compute(slice(first, first + size))
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0] if str(error) else "MemoryError"
            else:
                continue
            if size == 1:
                raise refusal(reason)
            # Outside of the handler: the error holds what was computed.
            free_memory()
            self.size = (size + 1) // 2
        return results


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, or of the memory's allocation, says that there is too little of it."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The CPU's allocator has no class of its own.
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)


def free_memory() -> None:
    """Gives memory that nothing uses back to the device, or to the system."""
    import ctypes
    import gc
    import platform

    import torch

    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        # Page-locked memory, which `--offload group` uses. torch 2.11 has no such function, and keeps it.
        give_back = getattr(torch.accelerator, "empty_host_cache", None)
        if give_back is not None:
            give_back()
