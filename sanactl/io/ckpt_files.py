"""Filling the files of a write: safetensors files by copies and computed values, a .pth through its zip archive."""

from __future__ import annotations

import heapq
import mmap
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sanactl.io import ckpt_direct
from sanactl.io.ckpt_copy import Sources, copy_span, in_threads, pwrite_all
from sanactl.io.ckpt_direct import PAGE
from sanactl.io.ckpt_plan import Blend, Bytes, Normal, Ones, PlannedTensor, Zeros
from sanactl.io.progress import Progress
from sanactl.io.safetensors import DTYPE_BYTES, TensorInfo, encode_header

__all__ = ["OutputFile", "create_file", "fill_files", "write_native"]

_CHUNK = 32 << 20  # bytes of a source that the kernel is asked to copy at a time
_PART = 1 << 20  # bytes held at a time by a thread where data pass through this process


@dataclass(frozen=True)
class OutputFile:
    """A safetensors file whose header is written and whose data are still holes.

    Attributes:
        descriptor: open for writing.
        direct: the same file, open to be written past the page cache, or None.
        tensors: in the order of the data.
        places: where each goes.
        start: first byte of the data.
        size: of the whole file in bytes.
    """

    descriptor: int
    direct: int | None
    tensors: Sequence[tuple[str, PlannedTensor]]
    places: Mapping[str, TensorInfo]
    start: int
    size: int

    def close(self) -> None:
        os.close(self.descriptor)
        if self.direct is not None:
            os.close(self.direct)


@dataclass(frozen=True, slots=True)
class _Copied:
    """`count` bytes of the target from byte `at` that are those of `file` from `offset`."""

    at: int
    count: int
    file: Path
    offset: int

    def cut(self, at: int, count: int) -> _Copied:
        return replace(self, at=at, count=count, offset=self.offset + at - self.at)


@dataclass(frozen=True, slots=True)
class _Computed:
    """`count` bytes of the target from byte `at` that are those of `tensor` from byte `offset`."""

    at: int
    count: int
    tensor: PlannedTensor
    offset: int

    def cut(self, at: int, count: int) -> _Computed:
        return replace(self, at=at, count=count, offset=self.offset + at - self.at)


_Extent = _Copied | _Computed


def create_file(path: Path, tensors: Mapping[str, PlannedTensor], metadata: Mapping[str, str]) -> OutputFile:
    """Write the header of a safetensors file and stretch it to its full size; what is never written stays zero.

    The caller closes it.
    """
    # Wider dtypes first keeps every tensor aligned to its elements; within one dtype the plan's order is kept.
    ordered = sorted(tensors.items(), key=lambda item: -DTYPE_BYTES[item[1].dtype])
    header, places = encode_header(((name, tensor.dtype, tensor.shape) for name, tensor in ordered), metadata)
    size = len(header) + sum(tensor.nbytes for _, tensor in ordered)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    file = OutputFile(descriptor, None, ordered, places, len(header), size)
    try:
        os.ftruncate(descriptor, size)
        pwrite_all(descriptor, header, 0)
        if sum(extent.count for extent in _extents(file)) >= ckpt_direct.DIRECT_FROM:
            file = replace(file, direct=ckpt_direct.open_direct(path))
        if file.direct is not None:
            for extent in _extents(file):
                ckpt_direct.allocate(descriptor, extent.at, extent.count)
    except BaseException:
        file.close()
        raise
    return file


def fill_files(files: Sequence[OutputFile], sources: Sources, progress: Progress, workers: int) -> None:
    """Give every file its data, by `workers` threads.

    Each file is filled from front to back, and the files side by side in the order of the sources' bytes, so that a
    source of which several files want a part is read once from its disk.
    """
    lock, local = threading.Lock(), threading.local()

    def advance(count: int) -> None:
        with lock:
            progress.advance(count)

    def buffer() -> memoryview:
        if not hasattr(local, "buffer"):
            local.buffer = memoryview(mmap.mmap(-1, _PART))  # begins at a page, as direct writes need
        return local.buffer

    def fill(file: OutputFile, extents: Sequence[_Extent]) -> None:
        first = extents[0]
        if file.direct is not None and not _shareable(extents):
            _write_window(file, extents, sources, buffer())
            advance(sum(extent.count for extent in extents))
        elif isinstance(first, _Copied):
            for count in copy_span(sources, first.file, first.offset, file.descriptor, first.at, first.count):
                advance(count)
        else:
            _put(first, sources, buffer()[: first.count])
            pwrite_all(file.descriptor, buffer()[: first.count], first.at)
            advance(first.count)

    def place(job: tuple[OutputFile, Sequence[_Extent]]) -> tuple[str, int]:
        return next(((str(e.file), e.offset) for e in job[1] if isinstance(e, _Copied)), ("", 0))

    jobs = heapq.merge(*(_jobs(file) for file in files), key=place) if len(files) > 1 else _jobs(files[0])
    in_threads((partial(fill, *job) for job in jobs), workers)
    zeros = sum(t.nbytes for file in files for _, t in file.tensors if isinstance(t.source, Zeros))
    if zeros:
        advance(zeros)


def _jobs(file: OutputFile) -> Iterator[tuple[OutputFile, Sequence[_Extent]]]:
    """What is done at a time: the extents of a window of the file, or where nothing is written directly, one extent."""
    if file.direct is not None:
        for window in _windows(_extents(file)):
            yield file, window
        return
    for extent in _extents(file):
        # A source is cut at the same places for every target, which lets `fill_files` take turns.
        step, phase = (
            (_CHUNK, extent.offset - extent.at) if isinstance(extent, _Copied) else (_PART, -extent.at)
        )
        for part in _cut(extent, step, phase):
            yield file, (part,)


def _extents(file: OutputFile) -> Iterator[_Extent]:
    """Everything but zeros in the order of the target's bytes; copies of neighbours that stay neighbours are one."""
    pending: _Copied | None = None
    for name, tensor in file.tensors:
        at = file.places[name].offset
        if isinstance(tensor.source, Bytes):
            for ref in tensor.source.refs:
                new = _Copied(at, ref.nbytes, ref.file, ref.offset)
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
            yield _Computed(at, tensor.nbytes, tensor, 0)
    if pending is not None:
        yield pending


def _cut(extent: _Extent, step: int, phase: int) -> Iterator[_Extent]:
    """An extent in parts of at most `step` bytes, which end where the target's byte plus `phase` is a multiple of it."""
    at, end = extent.at, extent.at + extent.count
    while at < end:
        count = min(end - at, step - (at + phase) % step)
        yield extent.cut(at, count)
        at += count


def _windows(extents: Iterable[_Extent]) -> Iterator[list[_Extent]]:
    """Extents by windows of the file of `_PART` bytes, and apart where whole pages of zeros lie between them.

    So every page of the file belongs to one window, and what a window's pages hold beside its extents is zero.
    """
    window: list[_Extent] = []
    for extent in extents:
        for part in _cut(extent, _PART, 0):
            if window:
                last = window[-1].at + window[-1].count - 1
                if part.at // _PART != last // _PART or part.at // PAGE > last // PAGE + 1:
                    yield window
                    window = []
            window.append(part)
    if window:
        yield window


def _shareable(extents: Sequence[_Extent]) -> bool:
    """Whether the kernel might share the source's blocks with the target instead of copying them (btrfs, XFS)."""
    first = extents[0]
    aligned = isinstance(first, _Copied) and first.at % PAGE == first.offset % PAGE == first.count % PAGE == 0
    return aligned and len(extents) == 1


def _write_window(file: OutputFile, extents: Sequence[_Extent], sources: Sources, buffer: memoryview) -> None:
    """Assemble the pages that `extents` lie in and write them at once, past the page cache."""
    begin, end = extents[0].at // PAGE * PAGE, -(-(extents[-1].at + extents[-1].count) // PAGE) * PAGE
    done = begin
    for extent in extents:
        buffer[done - begin : extent.at - begin] = bytes(extent.at - done)
        done = extent.at + extent.count
        _put(extent, sources, buffer[extent.at - begin : done - begin])
    buffer[done - begin : end - begin] = bytes(end - done)
    # The page that the header ends in and the file's last one are not whole ones of ours.
    low = begin if begin >= file.start else min(end, begin + PAGE)
    high = max(low, min(end, file.size // PAGE * PAGE))
    written = 0
    if high > low:
        assert file.direct is not None, file
        written = ckpt_direct.write_direct(file.direct, buffer[low - begin : high - begin], low)
    end = min(end, file.size)
    for first, last in ((max(begin, file.start), min(low, end)), (low + written, end)):
        if first < last:
            pwrite_all(file.descriptor, buffer[first - begin : last - begin], first)


def _put(extent: _Extent, sources: Sources, out: memoryview) -> None:
    """The bytes of an extent into `out`."""
    if isinstance(extent, _Copied):
        sources.read_into(extent.file, extent.offset, out)
        return
    from sanactl.io.ckpt_generate import compute

    compute(extent.tensor, extent.offset // DTYPE_BYTES[extent.tensor.dtype], out, sources.read_joined)


def write_native(
    path: Path,
    tensors: Mapping[str, PlannedTensor],
    metadata: Mapping[str, str],
    sources: Sources,
    progress: Progress,
) -> None:
    """A .pth of the native layout. Its zip archive wants a checksum of every byte, so here they pass through."""
    from sanactl.io.ckpt_pth_write import write_pth

    def chunks(name: str) -> Iterator[bytes]:
        for part in _parts(tensors[name], sources):
            yield part
            progress.advance(len(part))

    listed = ((name, tensor.dtype, tensor.shape) for name, tensor in tensors.items())
    write_pth(path, listed, {key: value for key, value in metadata.items() if key != "format"}, chunks)


def _parts(tensor: PlannedTensor, sources: Sources) -> Iterator[bytes]:
    """The bytes of any planned tensor, about a megabyte at a time."""
    for start in range(0, tensor.nbytes, _PART):
        count = min(_PART, tensor.nbytes - start)
        if isinstance(tensor.source, Bytes):
            yield sources.read_joined(tensor.source, start, count)
        elif isinstance(tensor.source, Zeros):
            yield bytes(count)
        else:
            part = bytearray(count)
            _put(_Computed(0, count, tensor, start), sources, memoryview(part))
            yield bytes(part)
