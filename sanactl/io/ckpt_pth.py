"""PyTorch's zip checkpoints (.pth) without torch: a table of tensors out of one, and one out of tensors.

Such a file is an uncompressed zip archive: `data.pkl` is a pickle in which every tensor refers to a storage by number,
and `data/<number>` holds that storage's raw bytes. So a tensor can be copied by offset like one of a safetensors file.

A pickle is a program. The unpickler here knows the few names a state dict needs, gives inert stand-ins for the
training state that commonly lies beside one (NumPy and torch objects), and refuses every other: nothing it reads is
ever imported or called. Source: torch `serialization.py`, `_save` and `_load`; the same idea as `weights_only=True`.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sanactl.errors import InputError
from sanactl.io.checkpoint import TensorRef
from sanactl.io.safetensors import DTYPE_BYTES, tensor_bytes

__all__ = ["read_pth", "write_pth"]

_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}  # fmt: skip
_STORAGE_OF = {dtype: storage for storage, dtype in _STORAGES.items()}
_PICKLE_LIMIT = 256 << 20  # bytes of data.pkl
_ALIGNMENT = 64  # bytes; torch's, so that a file can be mapped
_INERT = ("numpy", "torch")  # packages whose objects lie beside a state dict in training checkpoints
_INERT_NAMES = {
    ("_codecs", "encode"),
    ("argparse", "Namespace"),
    ("collections", "defaultdict"),
    ("builtins", "set"),
}


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor as the pickle tells it: a strided view of a storage. Offset and strides count elements."""

    key: str
    dtype: str
    numel: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Inert:
    """Stands in for an object that is not wanted; takes anything and does nothing."""

    def __init__(self, *args: Any, **keywords: Any) -> None: ...
    def __call__(self, *args: Any, **keywords: Any) -> _Inert:
        return self

    def __setstate__(self, state: Any) -> None: ...
    def __setitem__(self, key: Any, value: Any) -> None: ...
    def append(self, item: Any) -> None: ...
    def extend(self, items: Any) -> None: ...
    def add(self, item: Any) -> None: ...


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> _Stored:
    key, dtype, numel = storage
    return _Stored(key, dtype, numel, offset, tuple(size), tuple(stride))


_CALLS: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): lambda *items: tuple(*items),
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *rest: data,
    ("torch._tensor", "_rebuild_from_type_v2"): lambda function, kind, arguments, state: function(*arguments),
}


# The Python unpickler, not the C one: its memo is a dict, so that a hostile index cannot make it reserve gigabytes.
class _Unpickler(pickle._Unpickler):
    def __init__(self, data: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(data))
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _CALLS:
            return _CALLS[module, name]
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module.split(".")[0] in _INERT or (module, name) in _INERT_NAMES:
            return _Inert
        raise InputError(
            f"{self._path} asks to run {module}.{name}, which no checkpoint needs: not loaded",
            hint="do not load it with other tools either unless you trust who made it",
        )

    def persistent_load(self, pid: Any) -> tuple[str, str, int]:
        kind, dtype, key, _, numel = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"unknown reference {kind!r}")
        return str(key), dtype if isinstance(dtype, str) else "U8", int(numel)

    def get_extension(self, code: int) -> NoReturn:
        raise pickle.UnpicklingError("extension codes are not used in checkpoints")


def read_pth(path: Path) -> tuple[dict[str, TensorRef], dict[str, str]]:
    """The state dict of a .pth file as places in that file, and the header strings that sanactl keeps beside it.

    Raises:
        InputError: no such file, not torch's zip format, damaged, or a pickle that wants to run code.
    """
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as raw:
            entries = {entry.filename: entry for entry in archive.infolist()}
            pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise InputError(f"{path} is a zip archive without one data.pkl, so no PyTorch checkpoint")
            prefix = pickles[0][: -len("data.pkl")]
            if entries[pickles[0]].file_size > _PICKLE_LIMIT:
                raise InputError(
                    f"{path}: data.pkl has {entries[pickles[0]].file_size:,} bytes, too many for an index"
                )
            if prefix + "byteorder" in entries and archive.read(prefix + "byteorder")[:6] != b"little":
                raise InputError(
                    f"{path} was saved on a big-endian machine", hint="save it again on a little-endian one"
                )
            root = _Unpickler(archive.read(pickles[0]), path).load()
            places = {
                name[len(prefix) + 5 :]: (_data_offset(raw, entry, path), entry.file_size)
                for name, entry in entries.items()
                if name.startswith(prefix + "data/")
            }
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from error
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{path} is not a PyTorch zip checkpoint ({error})",
            hint="if torch older than 1.6 wrote it, load and save it again with a newer one",
        ) from error
    except Exception as error:  # a damaged pickle fails in as many ways as there are opcodes
        raise InputError(
            f"{path} is damaged: its data.pkl cannot be read ({type(error).__name__}: {error})"
        ) from error
    state = root.get("state_dict", root) if isinstance(root, dict) else None
    if not isinstance(state, dict) or not any(isinstance(value, _Stored) for value in state.values()):
        raise InputError(f"{path} holds no state dict of tensors")
    ours = root.get("sanactl", {})
    strings = (
        {str(key): value for key, value in ours.items() if isinstance(value, str)}
        if isinstance(ours, dict)
        else {}
    )
    return {
        str(name): _place(path, str(name), stored, places)
        for name, stored in state.items()
        if isinstance(stored, _Stored)
    }, strings


def _data_offset(raw: io.BufferedReader, entry: zipfile.ZipInfo, path: Path) -> int:
    """Where an entry's bytes start: after its local header, whose length only that header tells."""
    if entry.compress_type != zipfile.ZIP_STORED:
        raise InputError(f"{path}: {entry.filename} is compressed", hint="save it again with torch.save")
    raw.seek(entry.header_offset)
    header = raw.read(30)
    if len(header) != 30 or header[:4] != b"PK\x03\x04":
        raise InputError(f"{path} is damaged: no local header for {entry.filename}")
    name, extra = struct.unpack("<HH", header[26:30])
    start = entry.header_offset + 30 + name + extra
    if start + entry.file_size > os.fstat(raw.fileno()).st_size:
        raise InputError(
            f"{path} is truncated: {entry.filename} reaches past its end", hint="copy or download it again"
        )
    return int(start)


def _place(path: Path, name: str, stored: _Stored, places: Mapping[str, tuple[int, int]]) -> TensorRef:
    numbers = (stored.offset, *stored.shape, *stored.stride)
    sane = all(type(item) is int and 0 <= item < 1 << 48 for item in numbers)
    if stored.dtype not in DTYPE_BYTES or not sane or len(stored.shape) != len(stored.stride):
        raise InputError(f"{path}: tensor {name} is described by impossible numbers")
    step = 1
    for size, stride in zip(reversed(stored.shape), reversed(stored.stride), strict=True):
        if size != 1 and stride != step:
            raise InputError(
                f"{path}: tensor {name} is not contiguous", hint="save it again with .contiguous()"
            )
        step *= size
    nbytes, offset = tensor_bytes(stored.dtype, stored.shape), stored.offset * DTYPE_BYTES[stored.dtype]
    if stored.key not in places:
        raise InputError(
            f"{path}: the storage {stored.key} of {name} is missing", hint="copy or download it again"
        )
    start, size = places[stored.key]
    if offset + nbytes > size:
        raise InputError(f"{path}: tensor {name} needs {offset + nbytes:,} bytes of a storage of {size:,}")
    return TensorRef(path, start + offset, nbytes, stored.dtype, stored.shape)


def write_pth(
    path: Path,
    tensors: Iterable[tuple[str, str, tuple[int, ...]]],
    strings: Mapping[str, str],
    chunks: Callable[[str], Iterator[bytes]],
) -> None:
    """Write `{"state_dict": {name: tensor}, "sanactl": strings}` as torch.save would.

    Args:
        path: the file; overwritten.
        tensors: (name, dtype, shape) in order.
        strings: kept beside the state dict.
        chunks: the bytes of the tensor of that name, in parts.
    """
    listed = list(tensors)
    for name, dtype, _ in listed:
        if dtype not in _STORAGE_OF:
            raise InputError(
                f"tensor {name} has the dtype {dtype}, which a .pth cannot hold", hint="convert with --dtype"
            )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:

        def entry(name: str, parts: Iterable[bytes], size: int) -> None:
            info = zipfile.ZipInfo(f"archive/{name}")  # dated 1980: the same tensors give the same file
            large = size >= 1 << 31
            assert archive.fp is not None
            start = archive.fp.tell() + 30 + len(info.filename) + (20 if large else 0)
            padding = -(start + 4) % _ALIGNMENT
            info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding  # as torch pads
            with archive.open(info, "w", force_zip64=large) as file:
                for part in parts:
                    file.write(part)

        index = _pickle(listed, strings)
        entry("data.pkl", [index], len(index))
        entry("byteorder", [b"little"], 6)
        for number, (name, dtype, shape) in enumerate(listed):
            entry(f"data/{number}", chunks(name), tensor_bytes(dtype, shape))
        entry("version", [b"3\n"], 2)


def _pickle(tensors: Iterable[tuple[str, str, tuple[int, ...]]], strings: Mapping[str, str]) -> bytes:
    """data.pkl in protocol 2, opcode by opcode: pickling by name what cannot be imported here."""

    def text(value: str) -> bytes:
        data = value.encode("utf-8")
        return b"X" + struct.pack("<I", len(data)) + data

    def number(value: int) -> bytes:
        if value < 1 << 31:
            return b"J" + struct.pack("<i", value)
        data = pickle.encode_long(value)
        return b"\x8a" + bytes([len(data)]) + data

    def numbers(values: Iterable[int]) -> bytes:
        return b"(" + b"".join(number(value) for value in values) + b"t"

    out = [b"\x80\x02}(", text("state_dict"), b"}("]
    for key, (name, dtype, shape) in enumerate(tensors):
        stride: list[int] = []
        step = 1
        for size in reversed(shape):
            stride.insert(0, step)
            step *= max(size, 1)
        numel = tensor_bytes(dtype, shape) // DTYPE_BYTES[dtype]
        storage = (
            b"(" + text("storage") + f"ctorch\n{_STORAGE_OF[dtype]}\n".encode() + text(str(key)) + text("cpu")
        )
        out += [
            text(name), b"ctorch._utils\n_rebuild_tensor_v2\n", b"(", storage, number(numel), b"tQ", number(0),
            numbers(shape), numbers(stride), b"\x89", b"ccollections\nOrderedDict\n)R", b"tR",
        ]  # fmt: skip
    out += [b"u", text("sanactl"), b"}("]
    for key_text, value in strings.items():
        out += [text(key_text), text(value)]
    return b"".join([*out, b"uu."])
