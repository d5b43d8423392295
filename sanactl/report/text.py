"""Text for people from what records hold: one line, of bounded length, that any encoder takes."""

from __future__ import annotations

import math
import re

__all__ = ["compact", "counted", "finite", "interval_of", "number", "plain", "plural", "short_name"]

MAX_LABEL = 48


def plain(text: object, limit: int = MAX_LABEL) -> str:
    """One line of at most `limit` characters that any encoder takes: no controls, no lone surrogates."""
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", str(text))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def short_name(path: object) -> str:
    """A checkpoint's path for a label: as it is, or its last part where it is long."""
    text = "no checkpoint named" if path is None else str(path)
    return text if len(text) <= 36 else f"…/{text.rstrip('/').rpartition('/')[2]}"


def finite(value: object) -> float | None:
    """A record's value as a number, None for what is none: text, true, NaN, more digits than a float has."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def interval_of(value: object) -> tuple[float, float] | None:
    """A record's interval, [low, high], as two numbers; None for what is none."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = finite(value[0]), finite(value[1])
    return None if low is None or high is None else (low, high)


def number(value: object, digits: int = 3) -> str:
    """A number for people, "-" for none; anything else as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-" if value is None else plain(value, 400)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**18 else f"{finite(value) or math.inf:.3g}"
    return (
        f"{value:.{digits}f}"
        if abs(value) < 1e4
        else f"{value:,.0f}"
        if abs(value) < 1e15
        else f"{value:.3g}"
    )


def counted(count: int, what: str) -> str:
    """A count and what it counts: 1 step, 1,000 steps."""
    return f"{number(count)} {plural(count, what)}"


def plural(count: int, what: str) -> str:
    """A word for a count of things: step for one, else steps."""
    return what if count == 1 else f"{what}s"


def compact(value: float) -> str:
    """A count in short: 1.61 M, 4.8 B."""
    for size, letter in ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " K")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
