"""The types of numbers (dtypes) and their names in safetensors, in torch and in options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DTYPES", "WEIGHT_DTYPES", "Dtype", "find_dtype"]


@dataclass(frozen=True, slots=True)
class Dtype:
    """A type of numbers.

    Attributes:
        name: safetensors' name ("BF16"); tensors, plans and records use it.
        nbytes: bytes of one number.
        torch: torch's name, an attribute of the package ("bfloat16").
        storage: torch's storage class in a .pth file ("BFloat16Storage"); None if it is stored as bytes.
        short: the name in options ("bf16"); None if no option takes it.
    """

    name: str
    nbytes: int
    torch: str
    storage: str | None = None
    short: str | None = None


DTYPES: Mapping[str, Dtype] = {
    dtype.name: dtype
    for dtype in (
        Dtype("F64", 8, "float64", "DoubleStorage"),
        Dtype("F32", 4, "float32", "FloatStorage", "fp32"),
        Dtype("BF16", 2, "bfloat16", "BFloat16Storage", "bf16"),
        Dtype("F16", 2, "float16", "HalfStorage", "fp16"),
        Dtype("F8_E4M3", 1, "float8_e4m3fn"),
        Dtype("F8_E5M2", 1, "float8_e5m2"),
        Dtype("F8_E8M0", 1, "float8_e8m0fnu"),
        Dtype("F8_E4M3FNUZ", 1, "float8_e4m3fnuz"),
        Dtype("F8_E5M2FNUZ", 1, "float8_e5m2fnuz"),
        Dtype("C64", 8, "complex64", "ComplexFloatStorage"),
        Dtype("I64", 8, "int64", "LongStorage"),
        Dtype("I32", 4, "int32", "IntStorage"),
        Dtype("I16", 2, "int16", "ShortStorage"),
        Dtype("I8", 1, "int8", "CharStorage"),
        Dtype("U64", 8, "uint64"),
        Dtype("U32", 4, "uint32"),
        Dtype("U16", 2, "uint16"),
        Dtype("U8", 1, "uint8", "ByteStorage"),
        Dtype("BOOL", 1, "bool", "BoolStorage"),
    )
}

# The types that weights can be computed and saved in, by their name in options.
WEIGHT_DTYPES: Mapping[str, Dtype] = {dtype.short: dtype for dtype in DTYPES.values() if dtype.short}


def find_dtype(text: str) -> Dtype | None:
    """The type of `WEIGHT_DTYPES` that a name means ("bf16", "bfloat16", "BF16", in any case); None if there is none."""
    wanted = {"half": "fp16"}.get(text.lower(), text.lower())
    for dtype in WEIGHT_DTYPES.values():
        if wanted in (dtype.short, dtype.torch):
            return dtype
    return None
