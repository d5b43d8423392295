"""The parts of a planned file: extents that are copied or computed, cut into pieces that are written one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sanactl.checkpoint.plan import Blend, Bytes, Normal, Ones, PlannedTensor
from sanactl.files.direct_io import PAGE
from sanactl.files.safetensors import TensorInfo

__all__ = ["Computed", "Copied", "Extent", "cut", "extents_of", "whole_pages", "windows_of"]


@dataclass(frozen=True, slots=True)
class Copied:
    """A copied extent: `count` bytes at byte `at` of the target equal those at `offset` of `file`."""

    at: int
    count: int
    file: Path
    offset: int

    def cut(self, at: int, count: int) -> Copied:
        return replace(self, at=at, count=count, offset=self.offset + at - self.at)


@dataclass(frozen=True, slots=True)
class Computed:
    """A computed extent: `count` bytes at byte `at` of the target are the bytes of `tensor` from its byte `offset`."""

    at: int
    count: int
    tensor: PlannedTensor
    offset: int

    def cut(self, at: int, count: int) -> Computed:
        return replace(self, at=at, count=count, offset=self.offset + at - self.at)


Extent = Copied | Computed


def extents_of(
    tensors: Sequence[tuple[str, PlannedTensor]], places: Mapping[str, TensorInfo]
) -> Iterator[Extent]:
    """Everything but zeros, in the order of the target's bytes. Adjacent copies of adjacent sources are one extent."""
    pending: Copied | None = None
    for name, tensor in tensors:
        at = places[name].offset
        if isinstance(tensor.source, Bytes):
            for ref in tensor.source.refs:
                new = Copied(at, ref.nbytes, ref.file, ref.offset)
                if (
                    pending is not None
                    and pending.cut(at, ref.nbytes) == new
                    and pending.at + pending.count == at
                ):
                    pending = replace(pending, count=pending.count + ref.nbytes)
                else:
                    if pending is not None:
                        yield pending
                    pending = new
                at += ref.nbytes
        elif isinstance(tensor.source, Ones | Normal | Blend) and tensor.nbytes:
            if pending is not None:
                yield pending
            pending = None
            yield Computed(at, tensor.nbytes, tensor, 0)
    if pending is not None:
        yield pending


def cut(extent: Extent, step: int, phase: int) -> Iterator[Extent]:
    """Cut an extent into parts of at most `step` bytes. Cuts are where the target's byte plus `phase` is a multiple of it."""
    at, end = extent.at, extent.at + extent.count
    while at < end:
        count = min(end - at, step - (at + phase) % step)
        yield extent.cut(at, count)
        at += count


def windows_of(extents: Iterable[Extent], size: int) -> Iterator[list[Extent]]:
    """Group extents by windows of `size` bytes of the file; whole pages of zeros between extents also separate groups.

    So each page of the file belongs to one group, and the bytes of its pages outside the extents are zero.
    """
    window: list[Extent] = []
    for extent in extents:
        for part in cut(extent, size, 0):
            if window:
                last = window[-1].at + window[-1].count - 1
                if part.at // size != last // size or part.at // PAGE > last // PAGE + 1:
                    yield window
                    window = []
            window.append(part)
    if window:
        yield window


def whole_pages(extent: Copied) -> tuple[Copied, list[Copied]] | None:
    """An extent's whole pages, and the parts around them; None if pages of source and target do not line up."""
    first = -(-extent.at // PAGE) * PAGE
    last = (extent.at + extent.count) // PAGE * PAGE
    if (extent.at - extent.offset) % PAGE or last <= first:
        return None
    around = [
        extent.cut(at, end - at)
        for at, end in ((extent.at, first), (last, extent.at + extent.count))
        if end > at
    ]
    return extent.cut(first, last - first), around
