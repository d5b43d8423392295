"""Filling the files of a write: safetensors files by copies and computed tiles, a .pth through its zip archive."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sanactl.io.ckpt_copy import Sources, copy_span, in_threads, pwrite_all
from sanactl.io.ckpt_plan import Blend, Bytes, Normal, Ones, PlannedTensor, Zeros
from sanactl.io.progress import Progress
from sanactl.io.safetensors import DTYPE_BYTES, TensorInfo, encode_header

__all__ = ["OutputFile", "create_file", "fill_files", "write_native"]

_CHUNK = (
    32 << 20
)  # bytes of a source that are copied to every target that wants them before the next are touched
_PART = 1 << 20  # bytes held at a time where data pass through this process
_COMPUTED = Ones | Normal | Blend


@dataclass(frozen=True)
class OutputFile:
    """A safetensors file whose header is written and whose data are still holes.

    Attributes:
        descriptor: open for writing; the caller closes it.
        tensors: in the order of the data.
        places: where each goes.
    """

    descriptor: int
    tensors: Sequence[tuple[str, PlannedTensor]]
    places: Mapping[str, TensorInfo]


def create_file(path: Path, tensors: Mapping[str, PlannedTensor], metadata: Mapping[str, str]) -> OutputFile:
    """Write the header of a safetensors file and stretch it to its full size; what is never written stays zero."""
    # Wider dtypes first keeps every tensor aligned to its elements; within one dtype the plan's order is kept.
    ordered = sorted(tensors.items(), key=lambda item: -DTYPE_BYTES[item[1].dtype])
    header, places = encode_header(((name, tensor.dtype, tensor.shape) for name, tensor in ordered), metadata)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        os.ftruncate(descriptor, len(header) + sum(tensor.nbytes for _, tensor in ordered))
        pwrite_all(descriptor, header, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return OutputFile(descriptor, ordered, places)


def fill_files(files: Sequence[OutputFile], sources: Sources, progress: Progress, workers: int) -> None:
    """Give every file its data: copies in this thread, computed tiles in `workers` others.

    The copies are made in the order of the sources' bytes, so that each source is read once from its disk however many
    files want it.
    """
    lock = threading.Lock()

    def advance(count: int) -> None:
        with lock:
            progress.advance(count)

    def copy() -> None:
        spans = [(*span, file.descriptor) for file in files for span in _spans(file)]
        for source, offset, at, count, descriptor in sorted(spans, key=lambda span: (str(span[0]), span[1])):
            for part in copy_span(sources, source, offset, descriptor, at, count):
                advance(part)

    computed = any(isinstance(tensor.source, _COMPUTED) for file in files for _, tensor in file.tensors)
    tiles = (job for file in files for job in _tiles(file, sources, advance))
    in_threads(tiles, workers if computed else 0, copy)
    zeros = sum(t.nbytes for file in files for _, t in file.tensors if isinstance(t.source, Zeros))
    if zeros:
        advance(zeros)


def _spans(file: OutputFile) -> Iterator[tuple[Path, int, int, int]]:
    """The copies as (source, offset in it, offset in the target, bytes): neighbours joined, then cut at round offsets.

    The cuts fall at the same places of a source for every target, which lets `fill_files` take turns.
    """
    source, offset, at, count = Path(), 0, 0, 0
    for name, tensor in file.tensors:
        position = file.places[name].offset
        for ref in tensor.source.refs if isinstance(tensor.source, Bytes) else ():
            if ref.file == source and ref.offset == offset + count and position == at + count:
                count += ref.nbytes
            else:
                yield from _cut(source, offset, at, count)
                source, offset, at, count = ref.file, ref.offset, position, ref.nbytes
            position += ref.nbytes
    yield from _cut(source, offset, at, count)


def _cut(source: Path, offset: int, at: int, count: int) -> Iterator[tuple[Path, int, int, int]]:
    while count:
        part = min(count, _CHUNK - offset % _CHUNK)
        yield source, offset, at, part
        offset, at, count = offset + part, at + part, count - part


def _tiles(
    file: OutputFile, sources: Sources, advance: Callable[[int], None]
) -> Iterator[Callable[[], None]]:
    """A job for each tile of each tensor that has to be computed."""
    from sanactl.io.ckpt_generate import TILE, tile_bytes, tile_count

    def make(tensor: PlannedTensor, tile: int, at: int) -> None:
        data = tile_bytes(tensor, tile, sources.read_joined)
        pwrite_all(file.descriptor, data, at)
        advance(len(data))

    for name, tensor in file.tensors:
        if isinstance(tensor.source, _COMPUTED):
            step = TILE * DTYPE_BYTES[tensor.dtype]
            for tile in range(tile_count(tensor)):
                yield partial(make, tensor, tile, file.places[name].offset + tile * step)


def write_native(
    path: Path,
    tensors: Mapping[str, PlannedTensor],
    metadata: Mapping[str, str],
    sources: Sources,
    progress: Progress,
) -> None:
    """A .pth of the native layout. Its zip archive wants a checksum of every byte, so here they pass through."""
    from sanactl.io.ckpt_pth import write_pth

    def chunks(name: str) -> Iterator[bytes]:
        for part in _parts(tensors[name], sources):
            yield part
            progress.advance(len(part))

    listed = ((name, tensor.dtype, tensor.shape) for name, tensor in tensors.items())
    write_pth(path, listed, {key: value for key, value in metadata.items() if key != "format"}, chunks)


def _parts(tensor: PlannedTensor, sources: Sources) -> Iterator[bytes]:
    """The bytes of any planned tensor, about a megabyte at a time."""
    from sanactl.io.ckpt_generate import tile_bytes, tile_count

    if isinstance(tensor.source, Bytes):
        for ref in tensor.source.refs:
            for start in range(0, ref.nbytes, _PART):
                yield sources.read(ref.file, ref.offset + start, min(_PART, ref.nbytes - start))
    elif isinstance(tensor.source, Zeros):
        for start in range(0, tensor.nbytes, _PART):
            yield bytes(min(_PART, tensor.nbytes - start))
    else:
        for tile in range(tile_count(tensor)):
            yield tile_bytes(tensor, tile, sources.read_joined)
