"""The types of numbers, and what each is called: by safetensors, by torch, by a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DTYPES", "WEIGHT_DTYPES", "Dtype", "find_dtype"]


@dataclass(frozen=True, slots=True)
class Dtype:
    """One type of numbers.

    Attributes:
        name: safetensors' name ("BF16"), which tensors, plans and records have.
        nbytes: of one number.
        torch: torch's name, an attribute of the package ("bfloat16").
        storage: torch's class of storages for it in a .pth ("BFloat16Storage"); None where it is kept in bytes.
        short: what a person calls it in an option ("bf16"); None for those that no option takes.
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

# Those that weights are computed in and saved in, by what a person calls them.
WEIGHT_DTYPES: Mapping[str, Dtype] = {dtype.short: dtype for dtype in DTYPES.values() if dtype.short}


def find_dtype(text: str) -> Dtype | None:
    """The one of `WEIGHT_DTYPES` that "bf16", "bfloat16" or "BF16" means, in any case; None where there is none."""
    wanted = {"half": "fp16"}.get(text.lower(), text.lower())
    for dtype in WEIGHT_DTYPES.values():
        if wanted in (dtype.short, dtype.torch):
            return dtype
    return None
