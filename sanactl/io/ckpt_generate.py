"""Tensor values that are computed rather than copied, a tile at a time, in numpy.

Random bits come from Philox, a counter-based generator: a tile is a function of (seed, tensor name, tile number), so
tiles can be made in any order, by any number of threads, and the file is the same. Bits become normal values through a
table of 65,536 quantiles, the two outermost of which are divided by 2^32 again: no value is more than 2^-17 of
probability from its exact place, the tails reach 7.8 sigma, and since nothing but integers and one table decides,
every machine and NumPy draws the same. It also takes a seventh of the time of NumPy's ziggurat (1.7 ns a value against
11.7, rounding to bf16 included), which would otherwise be slower than the disk.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError
from sanactl.io.ckpt_plan import Blend, Bytes, Normal, Ones, PlannedTensor
from sanactl.io.safetensors import DTYPE_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

__all__ = ["FLOAT_DTYPES", "TILE", "from_bytes", "tile_bytes", "tile_count", "to_bytes"]

TILE = 1 << 18  # elements: 1 MiB of fp32, which stays in cache through the passes below
FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")
_CELLS = 1 << 16
_inverse_cdf = NormalDist().inv_cdf
_F16_OVERFLOW = 65520.0  # from here on fp16 rounds to infinity
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}

ReadSpan = Callable[["Bytes", int, int], bytes]  # (joined spans, first byte within them, count) -> bytes


def tile_count(tensor: PlannedTensor) -> int:
    """Number of tiles that `tensor` is made in."""
    return -(-math.prod(tensor.shape) // TILE)


def tile_bytes(tensor: PlannedTensor, tile: int, read: ReadSpan) -> bytes:
    """The bytes of tile `tile` of a tensor that is Ones, Normal or Blend.

    Args:
        tensor: what is planned.
        tile: its number from 0; elements tile * TILE to (tile + 1) * TILE of the flattened tensor.
        read: reads source bytes, for Blend.
    """
    import numpy as np

    start = tile * TILE
    count = min(TILE, math.prod(tensor.shape) - start)
    source = tensor.source
    if tensor.dtype not in FLOAT_DTYPES:
        raise InputError(
            f"cannot compute values of dtype {tensor.dtype}", hint=f"use {', '.join(FLOAT_DTYPES)}"
        )
    if isinstance(source, Ones):
        return to_bytes(np.ones(count, np.float32), tensor.dtype)
    if isinstance(source, Normal):
        return _normal(source, tile, count, tensor.dtype).tobytes()
    assert isinstance(source, Blend), source
    total: Any = None
    for spans, weight in source.terms:
        dtype = spans.refs[0].dtype
        size = DTYPE_BYTES[dtype]
        term: Any = from_bytes(read(spans, start * size, count * size), dtype)
        if weight != 1.0:
            term = term * np.float32(weight)
        total = term if total is None else total + term
    if source.noise is not None:
        total = total + _normal(source.noise, tile, count, "F32")
    if tensor.dtype == "F16" and bool((np.abs(total[np.isfinite(total)]) >= _F16_OVERFLOW).any()):
        name = source.terms[0][0].refs[0].file
        raise InputError(f"{name} holds values that fp16 cannot (above 65,504)", hint="use bf16 or fp32")
    return to_bytes(total, tensor.dtype)


def _normal(source: Normal, tile: int, count: int, dtype: str) -> NDArray[Any]:
    """`count` values of N(0, sigma^2) of one tile, [count], in the array type that holds `dtype`'s bits."""
    import numpy as np

    key = int.from_bytes(hashlib.sha256(f"{source.seed}\0{source.name}".encode()).digest()[:16], "little")
    # The top word of the 256-bit counter is the tile's number: tiles are 2^192 draws apart and cannot overlap.
    bits = np.random.Philox(key=key, counter=tile << 192)
    cells = bits.random_raw(-(-count // 4)).astype("<u8", copy=False).view("<u2")[:count]
    values = _quantiles(source.sigma, dtype).take(cells, mode="wrap")
    outermost = np.flatnonzero((cells == 0) | (cells == _CELLS - 1))  # about 8 of a tile
    if outermost.size:
        fine = [((int(raw) >> 32) + 0.5) / (1 << 32) / _CELLS for raw in bits.random_raw(outermost.size)]
        signs = [1.0 if cells[place] == 0 else -1.0 for place in outermost]
        tail = [sign * _inverse_cdf(part) * source.sigma for sign, part in zip(signs, fine, strict=True)]
        values[outermost] = np.frombuffer(to_bytes(np.array(tail, np.float32), dtype), values.dtype)
    return values


@functools.lru_cache(maxsize=8)
def _quantiles(sigma: float, dtype: str) -> NDArray[Any]:
    """The middle quantile of each of 65,536 equally likely cells of N(0, sigma^2), [65536]."""
    import numpy as np

    lower = np.array(_standard_quantiles()) * sigma
    values = np.concatenate([lower, -lower[::-1]]).astype(np.float32)
    return np.frombuffer(to_bytes(values, dtype), _NUMPY[dtype])


@functools.cache
def _standard_quantiles() -> list[float]:
    """The lower half of the standard normal's quantiles."""
    return [_inverse_cdf((cell + 0.5) / _CELLS) for cell in range(_CELLS // 2)]


def to_bytes(values: F32, dtype: str) -> bytes:
    """Values as little-endian bytes of `dtype`, rounded to nearest even (fp16 overflow gives inf, as in torch)."""
    import numpy as np

    if dtype != "BF16":
        with np.errstate(over="ignore"):
            return values.astype(_NUMPY[dtype]).tobytes()
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    # bf16 is the upper half of fp32: add just under half of the last kept bit, or exactly half where that bit is odd
    rounded = (
        (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    ).astype("<u2")
    nan = np.isnan(values)
    if nan.any():  # the addition could carry a NaN over to infinity
        rounded[nan] = 0x7FC0
    return rounded.tobytes()


def from_bytes(data: bytes, dtype: str) -> NDArray[Any]:
    """Bytes of `dtype` as an array [count] of fp32 (fp64 stays fp64), without loss."""
    import numpy as np

    if dtype not in _NUMPY:
        raise InputError(
            f"cannot compute with values of dtype {dtype}", hint=f"use {', '.join(FLOAT_DTYPES)}"
        )
    raw = np.frombuffer(data, _NUMPY[dtype])
    if dtype == "BF16":
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return raw if dtype == "F64" else raw.astype(np.float32)
