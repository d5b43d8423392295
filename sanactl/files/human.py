"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["format_ranges", "human_bytes", "human_count", "human_flops"]


def human_count(number: float) -> str:
    """1,604,462,752 as 1.6B; at most three digits."""
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(number) >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:g}"


def human_bytes(number: float) -> str:
    """Bytes in decimal units, as file managers and the Hub show them."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(number) >= limit:
            return f"{number / limit:.3g} {unit}"
    return f"{number:.0f} B"


def human_flops(number: float) -> str:
    """2.5e12 as 2.5 TFLOPs."""
    for limit, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}FLOPs"
    return f"{number:.3g} FLOPs"


def format_ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as ranges: [0, 1, 2, 5] is "0-2,5"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)
