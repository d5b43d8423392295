"""Arrays of texts, as pyarrow makes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["array", "large_binary", "large_string"]
__version__ = "0.0"


class _Scalar(NamedTuple):
    value: str | bytes

    def as_py(self) -> str | bytes:
        return self.value


class _Array(list[_Scalar]):
    def to_pylist(self) -> list[str | bytes]:
        return [scalar.value for scalar in self]


def array(values: Iterable[str | bytes], kind: str) -> _Array:
    return _Array(map(_Scalar, values))


def large_binary() -> str:
    return "large_binary"


def large_string() -> str:
    return "large_string"
