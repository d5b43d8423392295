"""Options of a backend as text (`--judge-option KEY=VALUE`), read by what the backend itself declares."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sanactl.errors import UsageError

__all__ = ["known_options", "read_options", "split_options"]

_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def split_options(texts: Iterable[str], option: str = "--judge-option") -> dict[str, str]:
    """`["KEY=VALUE", ...]` as a dictionary; a dash in a key counts as an underscore.

    Args:
        texts: the option's values.
        option: its name, for errors.

    Raises:
        UsageError: a text has no `=`, or a key comes twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key:
            raise UsageError(f"{option} {text!r} is not KEY=VALUE", hint="for example dtype=bf16")
        if key in found:
            raise UsageError(f"{option} {key} is given twice")
        found[key] = value
    return found


def known_options(opener: Callable[..., Any]) -> dict[str, Any]:
    """The options of what opens a backend, with their defaults (see `read_options`)."""
    _, *parameters = inspect.signature(opener).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def read_options(opener: Callable[..., Any], given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Checks options against the parameters of the function or class that opens a backend.

    An option is a parameter with a default, after the first parameter. Text is read as the type of that default:
    true or false, a whole number, a number, else text. Values that are no text pass as they are.

    Args:
        opener: called with the rest of the backend's name, then with the options as keywords.
        given: the options by name.
        what: names the backend in an error ("judge oracle").

    Raises:
        UsageError: an unknown option, or a value that is not of the option's type; the message names the valid ones.
    """
    known = known_options(opener)
    for name in given:
        if name not in known:
            options = f"its options: {', '.join(sorted(known))}" if known else "it has no options"
            raise UsageError(f"the {what} has no option {name!r}", hint=options)
    return {name: _read(name, value, known[name], what) for name, value in given.items()}


def _read(name: str, value: Any, default: Any, what: str) -> Any:
    if not isinstance(value, str) or default is None or isinstance(default, str):
        return value
    try:
        if isinstance(default, bool):
            return _FLAGS[value.lower()]
        number = type(default)(value)
        if not math.isfinite(number):
            raise ValueError
    except (KeyError, ValueError):
        kind = {bool: "true or false", int: "a whole number"}.get(type(default), "a number")
        raise UsageError(f"option {name} of the {what} is {value!r}", hint=f"it takes {kind}") from None
    return number
