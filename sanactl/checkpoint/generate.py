"""Computing tensor values in NumPy: random weights, ones, and blends, for any range of a tensor.

Random bits come from PCG64DXSM. Each tensor has its own stream; a digest of (seed, tensor name) gives the stream's state
and increment. Each 64-bit output gives four values, and the generator can jump to any output. So an element's value
depends only on the seed, the name and the element's number. Ranges can be computed in any order by any number of threads.

A table of 65,536 quantiles turns bits into normal values. The two outermost cells are divided by 2^32 again, so the tails
reach 7.8 sigma. No value is more than 2^-17 of probability from its exact place. Only integers and one table decide, so
every machine and every NumPy gives the same values. A value takes 1.9 ns including rounding to bf16, a seventh of the
13.8 ns of NumPy's ziggurat, which would be slower than the disk.

Sources: O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for Random Number
Generation" (2014), with the output function DXSM, NumPy's advice for parallel streams; Steele, Lea and Flood, "Fast
Splittable Pseudorandom Number Generators" (2014), for the mixing function of the outermost cells.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from sanactl.checkpoint.plan import Blend, Bytes, Normal, Ones, PlannedTensor
from sanactl.errors import InputError
from sanactl.files.float8 import FLOAT8_DTYPES, float8_values
from sanactl.files.safetensors import DTYPE_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

__all__ = ["FLOAT_DTYPES", "check_computable", "compute", "from_bytes", "to_bytes"]

FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")
_BATCH = 1 << 16  # elements: 128 KiB of bits, as much of table and 512 KiB of indices stay in a core's cache
_CELLS = 1 << 16
_PER_WORD = 4  # values of 16 bits from one output of the generator
_inverse_cdf = NormalDist().inv_cdf
_F16_OVERFLOW = 65520.0  # fp16 rounds this and larger values to infinity
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_GOLDEN = 0x9E3779B97F4A7C15

ReadSpan = Callable[["Bytes", int, int], bytes]  # (joined spans, first byte within them, count) -> bytes
_local = threading.local()


def check_computable(tensor: PlannedTensor) -> None:
    """Check that values of a tensor's dtype can be computed.

    Raises:
        InputError: the dtype is not in `FLOAT_DTYPES`.
    """
    if tensor.dtype not in FLOAT_DTYPES:
        raise InputError(
            f"cannot compute values of dtype {tensor.dtype}", hint=f"use {', '.join(FLOAT_DTYPES)}"
        )


def compute(tensor: PlannedTensor, start: int, out: memoryview, read: ReadSpan) -> None:
    """Fill `out` with the bytes of a range of a planned tensor whose source is Ones, Normal or Blend.

    Args:
        tensor: the planned tensor.
        start: first element of the range, in the flattened tensor.
        out: a writable buffer for a whole number of elements.
        read: reads source bytes, for Blend.

    Raises:
        InputError: the dtype cannot be computed, or a value is too large for fp16.
    """
    import numpy as np

    check_computable(tensor)
    source = tensor.source
    values = np.frombuffer(out, _NUMPY[tensor.dtype])
    if isinstance(source, Ones):
        values[:] = np.frombuffer(to_bytes(np.ones(1, np.float32), tensor.dtype), values.dtype)
    elif isinstance(source, Normal):
        _normal(source, start, values, tensor.dtype)
    else:
        assert isinstance(source, Blend), source
        for first in range(0, values.size, _BATCH):
            part = values[first : first + _BATCH]
            blended = _blend(source, start + first, part.size, tensor.dtype, read)
            part[:] = np.frombuffer(to_bytes(blended, tensor.dtype), values.dtype)


def _blend(source: Blend, start: int, count: int, dtype: str, read: ReadSpan) -> NDArray[Any]:
    """Elements `start` to `start + count` of a weighted sum with noise, [count], in fp32."""
    import numpy as np

    total: Any = None
    for spans, weight in source.terms:
        size = DTYPE_BYTES[spans.refs[0].dtype]
        term: Any = from_bytes(read(spans, start * size, count * size), spans.refs[0].dtype)
        if weight != 1.0:
            term = term * np.float32(weight)
        total = term if total is None else total + term
    if source.noise is not None:
        noise = np.empty(count, np.float32)
        _normal(source.noise, start, noise, "F32")
        total = total + noise
    if dtype == "F16" and bool((np.abs(total[np.isfinite(total)]) >= _F16_OVERFLOW).any()):
        name = source.terms[0][0].refs[0].file
        raise InputError(f"{name} holds values that fp16 cannot (above 65,504)", hint="use bf16 or fp32")
    return total


def _normal(source: Normal, start: int, out: NDArray[Any], dtype: str) -> None:
    """Elements `start` to `start + len(out)` of a tensor of N(0, sigma^2), in the array type of `dtype`'s bits."""
    import numpy as np

    digest = hashlib.sha256(f"{source.seed}\0{source.name}".encode()).digest()
    state, increment = (int.from_bytes(digest[at : at + 16], "little") for at in (0, 16))
    bits = _generator()
    bits.state = {
        "bit_generator": "PCG64DXSM",
        "state": {"state": state, "inc": increment | 1},  # an increment has to be odd
        "has_uint32": 0,
        "uinteger": 0,
    }
    bits.advance(start // _PER_WORD)
    skip = start % _PER_WORD
    table = _quantiles(source.sigma, dtype)
    for first in range(0, out.size, _BATCH):
        part = out[first : first + _BATCH]
        words = bits.random_raw(-(-(skip + part.size) // _PER_WORD))
        cells = words.astype("<u8", copy=False).view("<u2")[skip : skip + part.size]
        # with "wrap" NumPy writes directly into `out`; no index is out of bounds
        table.take(cells, out=part, mode="wrap")
        outermost = np.flatnonzero(cells + np.uint16(1) <= 1)  # cells 65,535 and 0: two of a batch
        if outermost.size:
            tail = _tail(outermost + (start + first), cells[outermost] == 0, state)
            part[outermost] = np.frombuffer(
                to_bytes((tail * source.sigma).astype(np.float32), dtype), part.dtype
            )
        # a batch is a multiple of _PER_WORD, so all batches begin at the same place within a word
        if skip:
            bits.advance(-1 % (1 << 128))


def _generator() -> Any:
    """This thread's PCG64DXSM; the caller sets its state."""
    import numpy as np

    if not hasattr(_local, "bits"):
        _local.bits = np.random.PCG64DXSM(0)
    return _local.bits


def _tail(elements: NDArray[Any], lower: NDArray[Any], key: int) -> NDArray[np.float64]:
    """Standard normal values [n] of elements (numbers [n]) in the two outermost cells; `lower` [n] marks cell 0."""
    import numpy as np

    # SplitMix64: the output after `element` steps from the stream's own start
    x = (elements.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN) + np.uint64(key >> 64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    parts = [((int(raw) >> 32) + 0.5) / (1 << 32) / _CELLS for raw in x]
    return np.array([_inverse_cdf(part) for part in parts]) * np.where(lower, 1.0, -1.0)


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
    # bf16 is the upper half of fp32: add just less than half of the last kept bit, or exactly half if that bit is odd
    rounded = (
        (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    ).astype("<u2")
    nan = np.isnan(values)
    if nan.any():  # the addition could turn a NaN into infinity
        rounded[nan] = 0x7FC0
    return rounded.tobytes()


def from_bytes(data: bytes, dtype: str) -> NDArray[Any]:
    """Bytes of `dtype` as an array [count] of fp32 (fp64 stays fp64), without loss."""
    import numpy as np

    if dtype in FLOAT8_DTYPES:
        return float8_values(dtype)[np.frombuffer(data, np.uint8)]
    if dtype not in _NUMPY:
        raise InputError(
            f"cannot compute with values of dtype {dtype}", hint=f"use {', '.join(FLOAT_DTYPES)}"
        )
    raw = np.frombuffer(data, _NUMPY[dtype])
    if dtype == "BF16":
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return raw if dtype == "F64" else raw.astype(np.float32)
