"""Hashes of bytes while they are written to a file, so that the file need not be read again."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from typing import Any

from sanactl.files.content import LEAF, joined

__all__ = ["PassingHashes"]


@dataclass
class _Leaf:
    """A part of `LEAF` bytes that arrives in pieces; a piece that comes early waits for those before it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    hash: Any = field(default_factory=hashlib.sha256)
    next: int = 0
    waiting: dict[int, bytes] = field(default_factory=dict)


class PassingHashes:
    """Computes the hashes of spans whose pieces come from several threads, nearly in order.

    Few pieces wait in memory: at most one for each thread that is ahead of the slowest.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[tuple[int, int], _Leaf] = {}
        self._done: dict[int, dict[int, bytes]] = {}

    def add(self, span: int, total: int, offset: int, data: memoryview) -> None:
        """Add a piece of span number `span`, which has `total` bytes; the piece begins at byte `offset` of the span."""
        while data:
            number, start = divmod(offset, LEAF)
            count = min(len(data), LEAF - start)
            self._feed(span, number, min(LEAF, total - number * LEAF), start, data[:count])
            data, offset = data[count:], offset + count

    def hash(self, span: int, total: int) -> bytes | None:
        """The hash of a span, equal to that of `span_hashes`; None if pieces of it are missing."""
        leaves = self._done.get(span, {})
        if len(leaves) < -(-total // LEAF) or not total:
            return None
        return leaves[0] if total <= LEAF else joined([leaves[n] for n in range(len(leaves))])

    def _feed(self, span: int, number: int, size: int, start: int, data: memoryview) -> None:
        with self._lock:
            if number in self._done.setdefault(span, {}):
                return
            leaf = self._open.setdefault((span, number), _Leaf())
        with leaf.lock:
            if start != leaf.next:
                leaf.waiting[start] = bytes(data)
                return
            leaf.hash.update(data)
            leaf.next += len(data)
            while (piece := leaf.waiting.pop(leaf.next, None)) is not None:
                leaf.hash.update(piece)
                leaf.next += len(piece)
            if leaf.next < size:
                return
        with self._lock:
            self._done[span][number] = leaf.hash.digest()
            self._open.pop((span, number), None)
