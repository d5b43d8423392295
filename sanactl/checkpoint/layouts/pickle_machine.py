"""The machine that runs a pickle: a stack with marks, and a memo. `sanactl.checkpoint.layouts.pickles` runs it."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any, Final

__all__ = ["INERT", "Call", "Machine", "PickleError", "decoded", "fill"]

_MAX_LINE = 4096  # bytes of an argument that ends in a line feed
_MAX_NAME = 256  # characters of a module's and its member's name


class PickleError(ValueError):
    """A pickle cannot be read; the message says why in a few words."""


class Inert:
    """The type of `INERT`, the placeholder for objects that are not needed."""


INERT: Final = Inert()
Call = Callable[..., Any]  # the function for a known name; raises TypeError or ValueError on wrong arguments


class Machine:
    """The stack and the memo of a pickle that is being read, and the operations of its instructions."""

    def __init__(self, data: bytes, find: Callable[[str, str], Any], storage: Call) -> None:
        self.stream, self.size = io.BytesIO(data), len(data)
        self.find, self.storage = find, storage
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    # Arguments that follow an instruction.

    def take(self, count: int) -> bytes:
        data = self.stream.read(min(count, self.size))
        if len(data) != count:
            raise PickleError("it ends early")
        return data

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def line(self) -> str:
        data = self.stream.readline(_MAX_LINE)
        if not data.endswith(b"\n"):
            raise PickleError("a line of text does not end")
        return decoded(data[:-1])

    # The stack. An instruction with many values takes the part since the last mark.

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise PickleError("it takes a value from an empty stack")
        return self.stack.pop()

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise PickleError("it takes a value from an empty stack")
        return self.stack[-1]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        if not self.marks:
            raise PickleError("it takes values to a mark that is not there")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def remember(self, place: int) -> None:
        self.memo[place] = self.top()

    def recall(self, place: int) -> None:
        if place not in self.memo:
            raise PickleError("it asks for a value that was not remembered")
        self.push(self.memo[place])

    # Containers and names.

    def set_items(self, values: list[Any]) -> None:
        target = self.top()
        if len(values) % 2:
            raise PickleError("a key has no value")
        if isinstance(target, dict):
            fill(target, zip(values[::2], values[1::2], strict=True))
        elif target is not INERT:
            raise PickleError("it sets an item of a value that is not a dict")

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target += values
        elif target is not INERT:
            raise PickleError("it appends to a value that is not a list")

    def named(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > _MAX_NAME:
            raise PickleError("a name is not text, or is too long")
        self.push(self.find(module, name))

    def call(self, arguments: Any) -> None:
        target = self.pop()
        if target is INERT:
            self.push(INERT)
            return
        if not callable(target) or not isinstance(arguments, tuple):
            raise PickleError("it calls a value that cannot be called")
        try:
            self.push(target(*arguments))
        except (TypeError, ValueError, OverflowError) as error:
            raise PickleError(f"a name is called with the wrong arguments ({error})") from error

    def persistent(self, parts: Any) -> None:
        try:
            self.push(self.storage(parts))
        except (TypeError, ValueError, OverflowError) as error:
            raise PickleError(f"a storage is described wrongly ({error})") from error

    def build(self) -> None:
        self.pop()  # the state of an object; no object that is needed here has one
        self.top()


def decoded(data: bytes) -> str:
    """Text of UTF-8, or PickleError."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PickleError("a text is not UTF-8") from error


def fill(target: dict[Any, Any], pairs: Any) -> None:
    """Set items whose keys are text or whole numbers; others are left out."""
    for key, value in pairs:
        if isinstance(key, str | int):
            target[key] = value
