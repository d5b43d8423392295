"""Filling the files of a write: safetensors files by copies and computed values, others through their layout."""

from __future__ import annotations

import heapq
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sanactl.checkpoint.copy import Sources, copy_span, pwrite_all
from sanactl.checkpoint.extents import Computed, Copied, Extent, cut, extents_of, whole_pages, windows_of
from sanactl.checkpoint.layouts.entry import Layout
from sanactl.checkpoint.plan import Bytes, PlannedTensor, Zeros
from sanactl.files import direct_io
from sanactl.files.direct_io import PAGE
from sanactl.files.passing import PassingHashes
from sanactl.files.progress import Progress
from sanactl.files.safetensors import DTYPE_BYTES, TensorInfo, encode_header, placement
from sanactl.files.threads import in_threads

__all__ = ["OutputFile", "create_file", "fill_files", "write_passing"]

_CHUNK = 32 << 20  # bytes of a source that the kernel copies at a time
_SHARE = 1 << 30  # bytes that a file shares with its source in one call
_SHARE_FROM = 64 << 10  # bytes; a smaller part is copied with its neighbours
_PART = 1 << 20  # bytes; the buffer of a thread when data passes through this process
_Put = Callable[[Extent, memoryview], None]  # fills a buffer with the bytes of an extent


@dataclass(frozen=True)
class OutputFile:
    """A safetensors file whose header is written and whose data are still holes.

    Attributes:
        descriptor: open for writing.
        direct: the same file, opened for writing without the page cache, or None.
        tensors: in the order of the data.
        places: each tensor's place in the file.
        size: of the whole file, in bytes.
    """

    descriptor: int
    direct: int | None
    tensors: Sequence[tuple[str, PlannedTensor]]
    places: Mapping[str, TensorInfo]
    size: int

    def extents(self) -> Iterator[Extent]:
        """The extents that must be written."""
        return extents_of(self.tensors, self.places)

    def close(self) -> None:
        os.close(self.descriptor)
        if self.direct is not None:
            os.close(self.direct)


def create_file(path: Path, tensors: Mapping[str, PlannedTensor], metadata: Mapping[str, str]) -> OutputFile:
    """Write the header of a safetensors file and extend it to its full size; bytes that are never written are zero.

    The caller closes it.
    """
    ordered = sorted(tensors.items(), key=lambda item: placement(item[1].dtype, item[1].shape))
    header, places = encode_header(((name, tensor.dtype, tensor.shape) for name, tensor in ordered), metadata)
    size = len(header) + sum(tensor.nbytes for _, tensor in ordered)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    file = OutputFile(descriptor, None, ordered, places, size)
    try:
        os.ftruncate(descriptor, size)
        pwrite_all(descriptor, header, 0)
        if sum(extent.count for extent in file.extents()) >= direct_io.DIRECT_FROM:
            file = replace(file, direct=direct_io.open_direct(path))
    except BaseException:
        file.close()
        raise
    return file


def fill_files(
    files: Sequence[OutputFile],
    sources: Sources,
    progress: Progress,
    workers: int,
    passing: PassingHashes | None = None,
) -> None:
    """Write the data of all files in `workers` threads. `passing` gets the bytes of computed tensors, by their `id()`.

    Each file is filled from front to back. Several files are filled in turns, in the order of the sources' bytes. So a part
    of a source that several files need is read once from its disk.
    """
    lock, local = threading.Lock(), threading.local()

    def advance(count: int) -> None:
        with lock:
            progress.advance(count)

    def buffer() -> memoryview:
        if not hasattr(local, "buffer"):
            local.buffer = memoryview(mmap.mmap(-1, _PART))  # page-aligned, which direct writes need
        return local.buffer

    def put(extent: Extent, out: memoryview) -> None:
        _put(extent, sources, out)
        if passing is not None and isinstance(extent, Computed):
            passing.add(id(extent.tensor), extent.tensor.nbytes, extent.offset, out)

    def fill(job: _Job) -> None:
        file, first = job.file, job.extents[0]
        if job.shared and _share(file, first, sources):
            advance(first.count)
        elif file.direct is not None and not job.shared:
            _write_window(file, job.extents, put, buffer())
            advance(sum(extent.count for extent in job.extents))
        elif isinstance(first, Copied):
            for count in copy_span(sources, first.file, first.offset, file.descriptor, first.at, first.count):
                advance(count)
        else:
            put(first, buffer()[: first.count])
            pwrite_all(file.descriptor, buffer()[: first.count], first.at)
            advance(first.count)

    def place(job: _Job) -> tuple[str, int]:
        return next(((str(e.file), e.offset) for e in job.extents if isinstance(e, Copied)), ("", 0))

    jobs = heapq.merge(*(_jobs(file, sources) for file in files), key=place)
    in_threads((partial(fill, job) for job in jobs), workers)
    zeros = sum(t.nbytes for file in files for _, t in file.tensors if isinstance(t.source, Zeros))
    if zeros:
        advance(zeros)


@dataclass(frozen=True, slots=True)
class _Job:
    """One piece of work for a thread: copy or compute extents of a file, or share one with its source."""

    file: OutputFile
    extents: Sequence[Extent]
    shared: bool = False


def _jobs(file: OutputFile, sources: Sources) -> Iterator[_Job]:
    """The jobs of a file: first the whole pages that it can share with its sources, then the rest."""
    able: dict[Path, bool] = {}

    def pages(extent: Extent) -> tuple[Copied, list[Copied]] | None:
        """The part of an extent that is shared, and the parts around it."""
        found = whole_pages(extent) if isinstance(extent, Copied) else None
        if found is None or found[0].count < _SHARE_FROM:
            return None
        whole = found[0]
        if whole.file not in able:
            able[whole.file] = _share(file, whole.cut(whole.at, PAGE), sources)
        return found if able[whole.file] else None

    def rest() -> Iterator[Extent]:
        for extent in file.extents():
            found = pages(extent)
            yield from (extent,) if found is None else found[1]

    for extent in file.extents():
        if found := pages(extent):
            for part in cut(found[0], _SHARE, 0):
                yield _Job(file, (part,), shared=True)
    if file.direct is not None:
        for extent in rest():
            direct_io.allocate(file.descriptor, extent.at, extent.count)
        for window in windows_of(rest(), _PART):
            yield _Job(file, window)
        return
    for extent in rest():
        # A source is cut at the same places for every target, so that `fill_files` can take turns.
        step, phase = (
            (_CHUNK, extent.offset - extent.at) if isinstance(extent, Copied) else (_PART, -extent.at)
        )
        for part in cut(extent, step, phase):
            yield _Job(file, (part,))


def _share(file: OutputFile, extent: Extent, sources: Sources) -> bool:
    """Try to share an extent's whole pages with their source; returns whether that worked."""
    return isinstance(extent, Copied) and direct_io.share(
        sources.descriptor(extent.file), extent.offset, file.descriptor, extent.at, extent.count
    )


def _write_window(file: OutputFile, extents: Sequence[Extent], put: _Put, buffer: memoryview) -> None:
    """Assemble the pages that contain `extents` and write them at once, without the page cache."""
    begin, end = extents[0].at // PAGE * PAGE, -(-(extents[-1].at + extents[-1].count) // PAGE) * PAGE
    done = begin
    for extent in extents:
        buffer[done - begin : extent.at - begin] = bytes(extent.at - done)
        done = extent.at + extent.count
        put(extent, buffer[extent.at - begin : done - begin])
    buffer[done - begin : end - begin] = bytes(end - done)
    # The file's last page is not complete.
    high = min(end, file.size // PAGE * PAGE)
    written = 0
    if high > begin:
        assert file.direct is not None, file
        written = direct_io.write_direct(file.direct, buffer[: high - begin], begin)
    first, end = begin + written, min(end, file.size)
    if first < end:
        pwrite_all(file.descriptor, buffer[first - begin : end - begin], first)


def _put(extent: Extent, sources: Sources, out: memoryview) -> None:
    """Put the bytes of an extent into `out`."""
    if isinstance(extent, Copied):
        sources.read_into(extent.file, extent.offset, out)
        return
    from sanactl.checkpoint.generate import compute

    compute(extent.tensor, extent.offset // DTYPE_BYTES[extent.tensor.dtype], out, sources.read_joined)


def write_passing(
    path: Path,
    layout: Layout,
    tensors: Mapping[str, PlannedTensor],
    metadata: Mapping[str, str],
    sources: Sources,
    progress: Progress,
) -> None:
    """Write a file of another layout. All bytes pass through this process, because a .pth needs their checksums."""

    def chunks(name: str) -> Iterator[bytes]:
        for part in _parts(tensors[name], sources):
            yield part
            progress.advance(len(part))

    assert layout.write is not None, layout
    listed = ((name, tensor.dtype, tensor.shape) for name, tensor in tensors.items())
    layout.write(path, listed, {key: value for key, value in metadata.items() if key != "format"}, chunks)


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
            _put(Computed(0, count, tensor, start), sources, memoryview(part))
            yield bytes(part)
