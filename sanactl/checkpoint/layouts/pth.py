"""Reading PyTorch's zip checkpoints (.pth) without torch, as a table of tensors.

Such a file is an uncompressed zip archive: `data.pkl` is a pickle in which every tensor refers to a storage by number,
and `data/<number>` has that storage's raw bytes. So a tensor can be copied by its offset, as in a safetensors file. The
pickle is read as data (`sanactl.checkpoint.layouts.pickles`): nothing that it names is imported or called.

Source: torch `serialization.py`, `_save` and `_load`; `_utils.py`, `_rebuild_tensor_v2` and `_rebuild_tensor_v3`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanactl.checkpoint.layouts.entry import StateDict
from sanactl.checkpoint.layouts.pickles import INERT, PickleError, load
from sanactl.checkpoint.layouts.zip_archive import read_archive
from sanactl.checkpoint.table import TensorRef
from sanactl.errors import InputError
from sanactl.files.dtypes import DTYPES
from sanactl.files.json_values import shown
from sanactl.files.safetensors import DTYPE_BYTES, tensor_bytes

__all__ = ["STORAGES", "WITHOUT_STORAGE", "read_pth"]

# torch's storages, by name, to safetensors' dtypes. No SANA has complex numbers.
STORAGES = {d.storage: d.name for d in DTYPES.values() if d.storage and d.name != "C64"} | {
    "UntypedStorage": "U8"
}
# torch's dtypes without a storage of their own: their tensors are stored as bytes and name the dtype.
WITHOUT_STORAGE = {d.torch: d.name for d in DTYPES.values() if d.storage is None}
# Training checkpoints contain objects of these beside the state dict.
_INERT_PACKAGES = ("numpy", "torch", "mmengine", "mmcv")
_PLAIN = ("set", "frozenset", "bytearray", "complex", "range", "slice")
_INERT_NAMES = {
    *((module, name) for module in ("builtins", "__builtin__") for name in _PLAIN),
    ("_codecs", "encode"), ("argparse", "Namespace"), ("collections", "defaultdict"), ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"), ("datetime", "datetime"), ("datetime", "timedelta"),
}  # fmt: skip
_UNKNOWN = "?"  # a dtype that safetensors does not have; an error if such a tensor is needed
_WEIGHTS = ("state_dict", "model_state_dict", "model", "module", "transformer")
_AVERAGES = ("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "ema")


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: str


@dataclass(frozen=True, slots=True)
class _Dtype:
    name: str


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor as the pickle describes it: a strided view of a storage. Offset and strides count elements."""

    key: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise ValueError("an impossible number")
    return value


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or len(value) > 64:
        raise ValueError("no list of sizes")
    return tuple(map(_whole, value))


def _size(value: Any = ()) -> tuple[int, ...]:
    """The replacement of `torch.Size`."""
    return _sizes(value)


def _ordered_dict() -> dict[str, Any]:
    """The replacement of an empty `collections.OrderedDict`; Python 3 pickles its items afterwards."""
    return {}


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Any:
    if not isinstance(storage, _Storage):
        return INERT
    return _Stored(storage.key, storage.dtype, _whole(offset), _sizes(size), _sizes(stride))


def _rebuild_tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> Any:
    if not isinstance(storage, _Storage):
        return INERT
    name = dtype.name if isinstance(dtype, _Dtype) else _UNKNOWN
    return _Stored(storage.key, name, _whole(offset), _sizes(size), _sizes(stride))


def _rebuild_parameter(data: Any, *rest: Any) -> Any:
    return data


def _rebuild_from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    if function not in (_rebuild_tensor, _rebuild_tensor_v3, _rebuild_parameter):
        return INERT
    return function(*arguments)


_CALLS: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch", "Size"): _size,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
}


def _storage(parts: Any) -> _Storage:
    """A persistent id: ("storage", type, key, device, number of elements)."""
    kind, dtype, key, _, _ = parts
    if kind != "storage" or not isinstance(key, str) or len(key) > 64:
        raise ValueError("an unknown kind of reference")
    return _Storage(key, dtype.name if isinstance(dtype, _Dtype) else _UNKNOWN)


def read_pth(path: Path) -> StateDict:
    """The state dict of a .pth file: each tensor's place in that file.

    Raises:
        InputError: it does not exist, is not in torch's zip format, is damaged, or its pickle asks to run code.
    """

    def find(module: str, name: str) -> Any:
        if (module, name) in _CALLS:
            return _CALLS[module, name]
        if module in ("torch", "torch.storage") and name in STORAGES:
            return _Dtype(STORAGES[name])
        if module == "torch" and name in WITHOUT_STORAGE:
            return _Dtype(WITHOUT_STORAGE[name])
        if module.split(".")[0] in _INERT_PACKAGES or (module, name) in _INERT_NAMES:
            return INERT
        raise InputError(
            f"{path} asks to run {shown(module)}.{shown(name)}, which no checkpoint needs: not loaded",
            hint="do not load it with other tools either unless you trust who made it",
        )

    data, places = read_archive(path)
    try:
        root = load(data, find, _storage)
    except PickleError as error:
        raise InputError(f"{path} is damaged: its data.pkl cannot be read ({error})") from error
    state, notes = _state_dict(root, path)
    strings = root.get("sanactl", {})
    strings = strings if isinstance(strings, dict) else {}
    return StateDict(
        {
            name: _place(path, name, stored, places)
            for name, stored in state.items()
            if isinstance(stored, _Stored) and isinstance(name, str)
        },
        {k: v for k, v in strings.items() if isinstance(k, str) and isinstance(v, str)},
        notes,
    )


def _state_dict(root: Any, path: Path) -> tuple[dict[Any, Any], tuple[str, ...]]:
    """The dict of tensors: the whole value, or an entry of it with a name that training programs use."""

    def holds(value: Any) -> bool:
        return isinstance(value, dict) and any(isinstance(item, _Stored) for item in value.values())

    if isinstance(root, dict):
        average = next((name for name in _AVERAGES if holds(root.get(name))), None)
        for name in _WEIGHTS:
            if holds(root.get(name)):
                left = (
                    f"{path} also holds an average of the weights ({average}), which is not used"
                    if average
                    else ""
                )
                return root[name], (left,) if left else ()
        if average is not None and not holds(root):
            note = f"{path} holds only the average of the weights ({average}), which is used"
            return root[average], (note,)
        if holds(root):
            return root, ()
    raise InputError(f"{path} holds no state dict of tensors")


def _place(path: Path, name: str, stored: _Stored, places: Mapping[str, tuple[int, int]]) -> TensorRef:
    what = f"{path}: tensor {shown(name)}"
    if stored.dtype not in DTYPE_BYTES:
        raise InputError(f"{what} has a dtype that no SANA has")
    if len(stored.shape) != len(stored.stride):
        raise InputError(f"{what} is described by impossible numbers")
    step = 1 if 0 not in stored.shape else 0  # without elements, any strides are valid
    for size, stride in zip(reversed(stored.shape), reversed(stored.stride), strict=True):
        if step and size != 1 and stride != step:
            raise InputError(f"{what} is not contiguous", hint="save it again with .contiguous()")
        step *= size
    nbytes, offset = tensor_bytes(stored.dtype, stored.shape), stored.offset * DTYPE_BYTES[stored.dtype]
    if stored.key not in places:
        raise InputError(
            f"{what} is in the storage {shown(stored.key)}, which is missing",
            hint="copy or download it again",
        )
    start, size = places[stored.key]
    if offset + nbytes > size:
        raise InputError(f"{what} is larger than its storage of {size:,} bytes")
    return TensorRef(path, start + offset, nbytes, stored.dtype, stored.shape)
