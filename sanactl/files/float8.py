"""Floating-point numbers of eight bits: the value of each byte.

Sources: "FP8 Formats for Deep Learning" (arXiv 2209.05433) for E4M3 and E5M2, "8-bit Numerical Formats for Deep Neural
Networks" (arXiv 2206.02915) for the FNUZ ones, OCP Microscaling Formats 1.0 for E8M0. A test compares them with torch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FLOAT8_DTYPES", "float8_values"]

# bits of the mantissa, bias of the exponent, whether the highest exponent holds infinity and NaN as in IEEE 754
_FORMATS: Mapping[str, tuple[int, int, bool]] = {
    "F8_E4M3": (3, 7, False),
    "F8_E5M2": (2, 15, True),
    "F8_E4M3FNUZ": (3, 8, False),
    "F8_E5M2FNUZ": (2, 16, False),
}
FLOAT8_DTYPES = (*_FORMATS, "F8_E8M0")


@functools.cache
def float8_values(dtype: str) -> NDArray[np.float32]:
    """The value of each of the 256 bytes, [256]."""
    import numpy as np

    return np.array([_value(dtype, byte) for byte in range(256)], np.float32)


def _value(dtype: str, byte: int) -> float:
    if dtype == "F8_E8M0":  # an exponent alone, without a sign
        return math.nan if byte == 255 else 2.0 ** (byte - 127)
    mantissa_bits, bias, ieee = _FORMATS[dtype]
    sign = -1.0 if byte & 0x80 else 1.0
    exponent, mantissa = (byte & 0x7F) >> mantissa_bits, byte & ((1 << mantissa_bits) - 1)
    if dtype.endswith("FNUZ"):
        if byte == 0x80:  # NaN instead of a negative zero
            return math.nan
    elif ieee and exponent == 31:
        return math.nan if mantissa else sign * math.inf
    elif byte & 0x7F == 0x7F:
        return math.nan
    if exponent == 0:
        return sign * mantissa * 2.0 ** (1 - bias - mantissa_bits)
    return sign * (1 + mantissa / (1 << mantissa_bits)) * 2.0 ** (exponent - bias)
