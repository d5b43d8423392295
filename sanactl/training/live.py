"""Counting the bytes of live tensors, operation by operation: the peak of a piece of work, the same on any machine."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["LiveBytes"]


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations in this thread make, from their first tensor to their last.

    It sees real tensors and fake ones alike. Storages that were there before do not count. Memory that an operation takes and gives back within itself is not seen,
    nor are the gaps of an allocator.

    Attributes:
        live: bytes now.
        peak: the most that were live at one time.
        at_peak: what `note` returned at that time.
    """

    def __init__(self, note: Any = lambda: None) -> None:
        super().__init__()
        self.live, self.peak, self.at_peak = 0, 0, note()
        self._note = note
        self._known: dict[int, tuple[weakref.ref[Any], int]] = {}

    def restart(self) -> None:
        """Forgets the peak: it is what is live now."""
        self.peak, self.at_peak = self.live, self._note()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # An output may be a view of an input whose storage is older than this mode.
        for leaf in tree_leaves((args, kwargs)):
            self._see(leaf, made=False)
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            self._see(leaf, made=True)
        return out

    def _see(self, value: Any, *, made: bool) -> None:
        # A fake tensor has the device that it stands for; one of the meta device stands for nothing.
        if not isinstance(value, torch.Tensor) or value.device.type == "meta":
            return
        storage = value.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes() if made else 0
        self._known[key] = (weakref.ref(storage, partial(self._gone, key)), size)
        self.live += size
        if self.live > self.peak:
            self.peak, self.at_peak = self.live, self._note()

    def _gone(self, key: int, storage: Any) -> None:
        _, size = self._known.pop(key)
        self.live -= size
