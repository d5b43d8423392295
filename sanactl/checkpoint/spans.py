"""Where a tensor's bytes are in a file, and whether the file was changed since it was opened."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

__all__ = ["Stamp", "TensorRef"]


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor's bytes in a file (row-major, little-endian).

    Attributes:
        file: the file.
        offset: position of the first byte, from the start of the file.
        nbytes: number of bytes.
        dtype: safetensors' name ("BF16").
        shape: dimensions.
    """

    file: Path
    offset: int
    nbytes: int
    dtype: str
    shape: tuple[int, ...]

    def rows(self, start: int, stop: int) -> TensorRef:
        """Rows `start` to `stop` (exclusive) of the first dimension, as a part of the same bytes."""
        assert 0 <= start <= stop <= self.shape[0], (start, stop, self.shape)
        row = self.nbytes // self.shape[0]
        shape = (stop - start, *self.shape[1:])
        return replace(self, offset=self.offset + start * row, nbytes=(stop - start) * row, shape=shape)


@dataclass(frozen=True, slots=True)
class Stamp:
    """The state of a file, to see whether it was replaced or rewritten since it was opened."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Stamp:
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
