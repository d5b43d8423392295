"""Amounts of a budget as people write them: 2.5T FLOPs, 90s."""

from __future__ import annotations

import math
import re

from sanactl.errors import UsageError

__all__ = ["one_budget", "read_amount"]

_FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12, "p": 1e15, "e": 1e18}
_TIMES = {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Z]*)\s*\Z")


def read_amount(text: str | float, option: str, *, time: bool = False) -> float:
    """A positive number: 2.5e12, 2.5T (K, M, G or B, T, P, E), or for a time 90, 90s, 1.5min, 2h.

    Args:
        option: its name, for an error.

    Raises:
        UsageError: it is no such number.
    """
    match = _NUMBER.match(str(text))
    factor = (_TIMES if time else _FACTORS).get(match[2].lower()) if match else None
    try:
        value = float(match[1]) * factor if match and factor else math.nan
    except ValueError:  # 1.2.3
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        examples = "90, 90s, 1.5min or 2h" if time else "8, 2.5e12 or 2.5T"
        raise UsageError(f"{option} {str(text)[:40]!r}: has to be a number above 0, such as {examples}")
    return value


def one_budget(
    images: str | float | None, flops: str | float | None, seconds: str | float | None
) -> tuple[str, float]:
    """The axis of a budget and its amount.

    Raises:
        UsageError: none or several are given, or one is no number above 0.
    """
    given = {"images": images, "flops": flops, "seconds": seconds}
    named = [(axis, value) for axis, value in given.items() if value is not None]
    if len(named) != 1:
        raise UsageError("give one budget: --images, --flops or --seconds", hint="for example --flops 100G")
    axis, value = named[0]
    return axis, read_amount(value, f"--{axis}", time=axis == "seconds")
