"""Reading tensors from safetensors files into aligned memory of this process.

The safetensors library returns views of the mapped file. This has three disadvantages. A tensor's address depends on the
length of the header; if it is not aligned, matrix products round differently on some processors. If the file is rewritten,
weights in use change. If the file is cut short, the process is killed (SIGBUS).
"""

from __future__ import annotations

import inspect
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sanactl.checkpoint.copy import Sources
from sanactl.checkpoint.open import Stamp, TensorRef
from sanactl.errors import InputError
from sanactl.files.dtypes import DTYPES
from sanactl.files.safetensors import read_header

__all__ = [
    "ALIGNMENT",
    "TORCH_DTYPES",
    "TensorFile",
    "aligned",
    "own_memory",
    "read_tensor",
    "read_tensors",
    "steady_files",
]

ALIGNMENT = 64  # bytes: of what torch allocates on a CPU; a cache line, and the widest vector register
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth"}
_READ_WHOLE = 4 << 30  # bytes; the file and the tensors are in memory together for a moment
TORCH_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, d.torch) for name, d in DTYPES.items()}


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or an aligned copy if it is on the CPU and its address is not a multiple of `ALIGNMENT`."""
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


def read_tensor(sources: Sources, ref: TensorRef) -> torch.Tensor:
    """One tensor of an open file, on the CPU.

    Raises:
        InputError: the file cannot be read, ends early, or is not the one that `sources` expects.
    """
    tensor = torch.empty(ref.shape, dtype=TORCH_DTYPES[ref.dtype])
    if ref.nbytes:
        sources.read_into(ref.file, ref.offset, memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
    return tensor


class TensorFile:
    """A safetensors file that stays open; tensors are read when they are asked for.

    Raises:
        InputError: the file cannot be read, is damaged, or changed since it was opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            stamp = Stamp.of(os.stat(path))
        except OSError as error:
            raise InputError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from error
        self.refs = {
            name: TensorRef(path, info.offset, info.nbytes, info.dtype, info.shape)
            for name, info in read_header(path).tensors.items()
        }
        self.path, self._sources = path, Sources({path: stamp})
        self.close = weakref.finalize(self, self._sources.close)

    def read(self, name: str) -> torch.Tensor:
        """A tensor, on the CPU."""
        return read_tensor(self._sources, self.refs[name])

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows `start` to `stop` of a tensor, on the CPU."""
        ref = self.refs.get(name)
        if ref is None or not 0 <= start <= stop <= ref.shape[0]:
            raise InputError(f"{self.path} holds no rows {start} to {stop} of {name}: it was replaced")
        return read_tensor(self._sources, ref.rows(start, stop))

    def check(self) -> None:
        """Raises InputError if the file was written to since it was opened."""
        self._sources.check()


def read_tensors(path: Path, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
    """Every tensor of a safetensors file.

    Raises:
        InputError: the file cannot be read, is damaged, or changed while it was being read.
    """
    file = TensorFile(path)
    tensors = {name: file.read(name).to(device) for name in file.refs}
    file.check()
    file.close()
    return tensors


@contextmanager
def steady_files(source: str) -> Iterator[dict[str, bool]]:
    """A context for another library's `from_pretrained`: it checks that the mapped files do not change meanwhile.

    Args:
        source: the folder or Hub id. For a Hub id nothing is checked, because files of the cache are never rewritten.

    Yields:
        options for `from_pretrained`: to read files of moderate size into memory instead of mapping them, because the
        process is killed if a mapped file is cut short.

    Raises:
        InputError: a file of weights changed.
    """
    from transformers import PreTrainedModel

    folder = Path(source)
    files = [f for f in sorted(folder.iterdir()) if f.suffix in _WEIGHTS] if folder.is_dir() else []
    before = {file: Stamp.of(os.stat(file)) for file in files}
    moderate = 0 < sum(stamp.size for stamp in before.values()) <= _READ_WHOLE
    # a later one than the oldest transformers that we take; diffusers had it before
    known = "disable_mmap" in inspect.signature(PreTrainedModel.from_pretrained).parameters
    yield {"disable_mmap": True} if moderate and known else {}
    for file, stamp in before.items():
        if not file.exists() or Stamp.of(os.stat(file)) != stamp:
            raise InputError(f"{file} changed while it was being read", hint="run the command again")


def own_memory(module: torch.nn.Module) -> None:
    """Copy a module's plain CPU tensors to memory of this process, if they may be views of mapped files.

    Another library's models are views of its mapped files, except where a cast made copies. A tensor that several parts
    of the module share stays shared.
    """
    moved: dict[
        int, tuple[torch.Tensor, torch.Tensor]
    ] = {}  # the old one is kept so that no other gets its id

    def copy(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in moved:
            moved[id(tensor)] = tensor, tensor.detach().clone()
        return moved[id(tensor)][1]

    for part in module.modules():
        for parameter in part._parameters.values():
            if type(parameter) is torch.nn.Parameter and _is_plain(parameter):
                parameter.data = copy(parameter)
        for name, buffer in part._buffers.items():
            if type(buffer) is torch.Tensor and _is_plain(buffer):
                part._buffers[name] = copy(buffer)


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.layout == torch.strided and not tensor.is_quantized
