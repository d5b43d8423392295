"""Functions that yield: with their arguments checked at the call, and as functions that return a list."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

__all__ = ["CHECKED", "checked", "listed"]

P = ParamSpec("P")
T = TypeVar("T")
# What a function marked with `checked` yields first: its arguments are checked, and no work is done yet.
CHECKED: Any = object()


def checked(stream: Callable[P, Iterator[T]]) -> Callable[P, Iterator[T]]:
    """Runs a generator function up to its `yield CHECKED` when it is called, so that errors are raised there."""

    @functools.wraps(stream)
    def function(*arguments: P.args, **keywords: P.kwargs) -> Iterator[T]:
        found = stream(*arguments, **keywords)
        reached = next(found)
        assert reached is CHECKED
        return found

    return function


def listed(stream: Callable[P, Iterator[T]]) -> Callable[[Callable[[], None]], Callable[P, list[T]]]:
    """Makes of a documented, empty function one that takes what `stream` takes and returns all that it yields."""

    def decorate(described: Callable[[], None]) -> Callable[P, list[T]]:
        def function(*arguments: P.args, **keywords: P.kwargs) -> list[T]:
            try:
                signature.bind(*arguments, **keywords)
            except TypeError as error:  # Python's own message would name `stream`
                raise TypeError(f"{described.__name__}() {error}") from None
            return list(stream(*arguments, **keywords))

        signature = inspect.signature(stream)
        found: Any = function
        found.__name__, found.__qualname__ = described.__name__, described.__qualname__
        found.__module__, found.__doc__ = described.__module__, described.__doc__
        yielded = str(signature.return_annotation).removeprefix("Iterator")
        found.__signature__ = signature.replace(return_annotation=f"list{yielded}")
        return function

    return decorate
