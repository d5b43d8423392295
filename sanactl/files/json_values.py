"""JSON from untrusted files, parsed strictly: every accepted value can be written again and printed.

Python's own parser accepts more than JSON (NaN, 1e400 as infinity, half a surrogate pair), and its errors can contain
the whole text. This module limits the depth and the digits of a number. The caller limits the length of the text.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

__all__ = ["MAX_DEPTH", "MAX_DIGITS", "brief", "parse_json", "shown", "what_is_wrong"]

MAX_DEPTH = 64  # nested lists and objects; a config has three levels
MAX_DIGITS = 4300  # of a whole number; Python's own limit for printing
_BRIEF = 60  # characters of a value in a message


def parse_json(text: str, *, unique: bool = False, constants: bool = False) -> Any:
    """Parse JSON that every reader of JSON accepts.

    Args:
        text: the whole document.
        unique: refuse an object that names a key twice; otherwise the last one counts.
        constants: allow NaN and infinities; diffusers writes them into scheduler configs.

    Raises:
        ValueError: the text is not such JSON; the message says in a few words why.
    """
    pairs: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None = _unique if unique else None
    try:
        value = json.loads(
            text,
            parse_constant=None if constants else _no_constant,
            parse_int=_whole,
            parse_float=_finite,
            object_pairs_hook=pairs,
        )
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{what_is_wrong(error)} at character {error.pos:,}") from None
    if not _shallow(value):
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if "\\u" in text:  # only an escape can make half of a surrogate pair; it could not be written as UTF-8
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("a character is half of a surrogate pair") from None
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def what_is_wrong(error: json.JSONDecodeError) -> str:
    """Python's words for it, without those that lead to the place: "Unterminated string" for "... starting at"."""
    return error.msg.removesuffix(" starting at").removesuffix(" at")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"it names {brief(twice)} twice")
    return result


def _shallow(value: Any) -> bool:
    """Whether no value is nested deeper than `MAX_DEPTH`."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        if not inner:
            return True
        level = inner
    return not any(isinstance(item, dict | list) for item in level)


def brief(value: Any) -> str:
    """A value for a message: its `repr`, shortened, without control characters."""
    if isinstance(value, str):
        return repr(value if len(value) <= _BRIEF else value[:_BRIEF] + "...")
    if isinstance(value, int) and value.bit_length() > 256:
        return "a number of more than 77 digits"
    if isinstance(value, dict):
        return f"an object of {len(value):,}"
    if isinstance(value, list | tuple):
        if len(value) > 8 or any(isinstance(item, dict | list | tuple) for item in value):
            return f"a list of {len(value):,}"
        return f"[{', '.join(brief(item) for item in value)}]"
    text = repr(value)
    return text if len(text) <= _BRIEF else text[:_BRIEF] + "..."


def shown(name: str) -> str:
    """A name for a message: unchanged if it is short and printable, else as by `brief`."""
    return name if len(name) <= 2 * _BRIEF and name.isprintable() else brief(name)
