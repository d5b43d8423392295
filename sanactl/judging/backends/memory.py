"""What to do when a batch does not fit into memory."""

from __future__ import annotations

__all__ = ["free_memory", "out_of_memory"]


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, or of the memory's allocation, says that there is too little of it."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The CPU's allocator has no class of its own.
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)


def free_memory() -> None:
    """Gives memory that nothing uses back to the device."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
