"""Writing a .pth without torch: the same kind of zip archive as torch.save, from tensors that come in parts.

Source: torch `serialization.py`, `_save`; `_utils.py`, `_rebuild_tensor_v2` and `_rebuild_tensor_v3`.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from sanactl.checkpoint.layouts.pth import STORAGES, WITHOUT_STORAGE
from sanactl.errors import InputError
from sanactl.files.safetensors import DTYPE_BYTES, tensor_bytes

__all__ = ["write_pth"]

_STORAGE_OF = {dtype: storage for storage, dtype in STORAGES.items() if storage != "UntypedStorage"}
_DTYPE_OF = {dtype: name for name, dtype in WITHOUT_STORAGE.items()}
_ALIGNMENT = 64  # bytes; torch's, so that a file can be mapped


def write_pth(
    path: Path,
    tensors: Iterable[tuple[str, str, tuple[int, ...]]],
    strings: Mapping[str, str],
    chunks: Callable[[str], Iterator[bytes]],
) -> None:
    """Write `{"state_dict": {name: tensor}, "sanactl": strings}` in the format of torch.save.

    Args:
        path: the file; overwritten.
        tensors: (name, dtype, shape) in order.
        strings: sanactl's header strings.
        chunks: gives the bytes of the tensor with a name, in parts.
    """
    listed = list(tensors)
    for name, dtype, _ in listed:
        if dtype not in _STORAGE_OF and dtype not in _DTYPE_OF:
            raise InputError(f"tensor {name} has the dtype {dtype}, which a .pth cannot hold")
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
    """data.pkl in protocol 2, written opcode by opcode, because torch's functions cannot be imported here."""

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
        typed = _STORAGE_OF.get(dtype)
        # torch stores dtypes without a storage of their own as bytes, and names the dtype beside the tensor
        kind = f"ctorch\n{typed}\n" if typed else "ctorch.storage\nUntypedStorage\n"
        numel = tensor_bytes(dtype, shape) // (DTYPE_BYTES[dtype] if typed else 1)
        version = b"2" if typed else b"3"
        storage = b"(" + text("storage") + kind.encode() + text(str(key)) + text("cpu")
        out += [
            text(name), b"ctorch._utils\n_rebuild_tensor_v" + version + b"\n", b"(", storage, number(numel), b"tQ",
            number(0), numbers(shape), numbers(stride), b"\x89", b"ccollections\nOrderedDict\n)R",
            b"tR" if typed else f"ctorch\n{_DTYPE_OF[dtype]}\ntR".encode(),
        ]  # fmt: skip
    out += [b"u", text("sanactl"), b"}("]
    for key_text, value in strings.items():
        out += [text(key_text), text(value)]
    return b"".join([*out, b"uu."])
