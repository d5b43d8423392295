"""Reading, checking and writing the header of a safetensors file.

A safetensors file is 8 bytes (the header's length N, little-endian), N bytes of JSON that map each tensor's name to its
dtype, shape and place, then the tensors' bytes without gaps. This module never reads tensor data, never imports torch,
and never reads more than `MAX_HEADER` bytes.

Source: https://github.com/huggingface/safetensors (README, "Format").
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.files.dtypes import DTYPES
from sanactl.files.json_values import brief, parse_json, shown
from sanactl.files.lfs import is_pointer, pointer_error

__all__ = [
    "DATA_ALIGNMENT",
    "DTYPE_BYTES",
    "MAX_HEADER",
    "Header",
    "TensorInfo",
    "encode_header",
    "placement",
    "read_header",
    "tensor_bytes",
]

MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library
# In files written here, data begins at a multiple of this many bytes. It is a page of memory and a block of any file
# system, so mapped tensors are aligned and files can share whole blocks.
DATA_ALIGNMENT = 4096
_MAX_VALUES = 2_000_000  # commas and colons of a header; a SANA of 1,024 blocks has an eighth
_MAX_BYTES = 1 << 62  # no tensor is larger; bounds the product of a hostile header's dimensions

DTYPE_BYTES: Mapping[str, int] = {name: dtype.nbytes for name, dtype in DTYPES.items()}
_PACKED = ("F4", "F6_E2M3", "F6_E3M2")  # dtypes of the library whose values take less than a byte


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """The place of one tensor in a file.

    Attributes:
        dtype: the file's name for it ("F32", "BF16", ...).
        shape: dimensions; () is a scalar.
        offset: position of its first byte, from the start of the file.
        nbytes: its length in bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """A validated header.

    Attributes:
        tensors: name to place, in the order of the data.
        metadata: the `__metadata__` strings.
        data_start: position of the first byte of tensor data in the file.
        size: of the file, in bytes.
    """

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int
    size: int


def tensor_bytes(dtype: str, shape: Iterable[int]) -> int:
    """The size in bytes of a tensor of this dtype and shape."""
    return DTYPE_BYTES[dtype] * math.prod(shape)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check the header of a safetensors file.

    Raises:
        InputError: the file cannot be read, is not a safetensors file, is truncated, or its header contradicts itself.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for a writer
            raise InputError(f"{path} is not a regular file")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if _is_text(start):
                if is_pointer(path):
                    raise pointer_error(path)
                raise InputError(f"{path} is a text file, not a checkpoint", hint=_text_hint(path))
            if size < 10:
                raise InputError(f"{path} is not a safetensors file: it has only {size} bytes")
            if length > MAX_HEADER:
                raise InputError(
                    f"{path} is not a safetensors file: its first bytes claim a header of {length:,} bytes"
                    f" (at most {MAX_HEADER:,})"
                )
            if 8 + length > size:
                raise InputError(
                    f"{path} is truncated: its header needs {8 + length:,} bytes and the file has {size:,}",
                    hint="copy or download it again",
                )
            raw = file.read(length)
    except OSError as error:
        raise InputError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from error
    return _check(path, raw, size)


def _is_text(start: bytes) -> bool:
    """Whether a file's first 8 bytes are text. In a safetensors file they are a length, and its upper bytes are zero."""
    return bool(start) and all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start)


def _text_hint(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return f"name its folder, {path.parent}"
    if suffix == ".jsonl":
        return f"records come through a pipe: name - in its place and add < {path}"
    return "name a .st file, a folder or a Hub id (prompts go to --prompts)"


def _check(path: Path, raw: bytes, size: int) -> Header:
    entries = _parse(path, raw)
    metadata = entries.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata  # the library also accepts null
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InputError(f"{path}: the header's __metadata__ is not a map from strings to strings")
    start = 8 + len(raw)
    found = sorted(
        ((name, _tensor(path, name, entry, start)) for name, entry in entries.items()),
        key=lambda item: (item[1].offset, item[1].nbytes),
    )
    end = start
    for name, info in found:
        if info.offset != end:
            fault = "overlaps the tensor before it" if info.offset < end else "leaves a hole before it"
            raise InputError(
                f"{path}: tensor {shown(name)} {fault} (byte {info.offset - start:,} of the data)"
            )
        end = info.offset + info.nbytes
    if end > size:
        raise InputError(
            f"{path} is truncated: its tensors end at byte {end:,} and the file has {size:,}",
            hint="copy or download it again",
        )
    if end < size:
        raise InputError(f"{path}: {size - end:,} bytes follow the last tensor")
    return Header(dict(found), metadata, start, size)


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    # Each parsed value takes about a hundred bytes of memory, so a hostile header's values are counted before parsing.
    values = raw.count(b",") + raw.count(b":")
    if values > _MAX_VALUES:
        raise InputError(f"{path}: its header has {values:,} values, more than any checkpoint has")
    try:
        text = raw.decode("utf-8")
        if not text.startswith("{"):
            raise ValueError("it does not start with '{'")
        entries = parse_json(text, unique=True)
    except ValueError as error:
        raise InputError(
            f"{path} is not a safetensors file: the header is not valid JSON ({error})"
        ) from error
    assert isinstance(entries, dict)
    return entries


def _tensor(path: Path, name: str, entry: Any, start: int) -> TensorInfo:
    what = f"{path}: tensor {shown(name)}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InputError(f"{what} does not have exactly a dtype, a shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if isinstance(dtype, str) and dtype in _PACKED:
        raise InputError(
            f"{what} has the dtype {dtype}, of less than a byte a value, which sanactl cannot read"
        )
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise InputError(f"{what} has the unknown dtype {brief(dtype)}")
    if not _counts(shape):
        raise InputError(f"{what} has the impossible shape {brief(shape)}")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise InputError(f"{what} has impossible data_offsets {brief(offsets)}")
    need = tensor_bytes(dtype, shape)
    if need != offsets[1] - offsets[0]:
        raise InputError(
            f"{what} of {dtype} {brief(shape)} needs {_number(need)} bytes"
            f" and its data_offsets span {offsets[1] - offsets[0]:,}"
        )
    return TensorInfo(dtype, tuple(shape), start + offsets[0], need)


def _number(value: int) -> str:
    return f"{value:,}" if value < _MAX_BYTES else "far too many"


def _counts(value: Any) -> bool:
    """Whether it is a short list of non-negative whole numbers of plausible size (`true` is not a number)."""
    return (
        isinstance(value, list)
        and len(value) <= 64
        and all(type(item) is int and 0 <= item < _MAX_BYTES for item in value)
    )


def placement(dtype: str, shape: Iterable[int]) -> tuple[int, bool]:
    """A key for sorting tensors in a file.

    Wider dtypes come first, which keeps every tensor aligned to its elements. Within a width, tensors of whole pages come
    first; so their pages line up with those of any other file that was written here.
    """
    return -DTYPE_BYTES[dtype], tensor_bytes(dtype, shape) % DATA_ALIGNMENT != 0


def encode_header(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, TensorInfo]]:
    """The first bytes of a safetensors file that holds these tensors in this order.

    The JSON is followed by spaces (the format allows them) up to a multiple of `DATA_ALIGNMENT`. Readers map tensors in
    place, so sort them by `placement` to keep each aligned to its elements.

    Args:
        tensors: (name, dtype, shape) in the order of the data.
        metadata: written as `__metadata__` when it is not empty.

    Returns:
        the header's bytes, and each tensor's place in the file.
    """
    listed = list(tensors)
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, dtype, shape in listed:
        end = position + tensor_bytes(dtype, shape)
        assert name not in entries, name
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-(8 + len(text)) % DATA_ALIGNMENT)
    if len(text) > MAX_HEADER:
        raise InputError(f"the header would have {len(text):,} bytes; safetensors allows {MAX_HEADER:,}")
    start = 8 + len(text)
    places = {
        name: TensorInfo(
            dtype, tuple(shape), start + entries[name]["data_offsets"][0], tensor_bytes(dtype, shape)
        )
        for name, dtype, shape in listed
    }
    return len(text).to_bytes(8, "little") + text, places
