"""Reading a pickle as data: nothing is imported or called, and each opcode takes one step.

A pickle is a program for a small machine with a stack and a memo. This module has the machine's instructions; the caller
gives the few names that a state dict needs. Other objects of NumPy and torch in training checkpoints become `INERT`, and
so does everything made from them. Only texts and numbers are kept as keys, because the hash of nested tuples can take
unlimited time.

Source: CPython `Lib/pickletools.py` (the instructions); torch `serialization.py` (what `weights_only=True` allows).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from sanactl.checkpoint.layouts.pickle_machine import INERT, Call, Machine, PickleError, decoded, fill

__all__ = ["INERT", "MAX_OPCODES", "PickleError", "load"]

MAX_OPCODES = 1_000_000  # takes a second; a training checkpoint of SANA's 60 blocks has 200,000
_MAX_INT = 1024  # bytes of a whole number


def load(data: bytes, find: Callable[[str, str], Any], storage: Call) -> Any:
    """Run a pickle.

    Args:
        data: the program.
        find: (module, name) to its value here: a value, a `Call` that may be called, or `INERT`. It may raise.
        storage: makes a value from a persistent id's parts.

    Returns:
        the value that it describes: dicts, lists, tuples, texts, bytes, numbers, results of `find` and `storage`, `INERT`.

    Raises:
        PickleError: it is not a complete pickle, uses an instruction that no checkpoint uses, or has more than `MAX_OPCODES`.
    """
    machine = Machine(data, find, storage)
    for _ in range(MAX_OPCODES):
        code = machine.stream.read(1)
        if code == b".":
            return machine.pop()
        step = _STEPS.get(code)
        if step is None:
            raise PickleError(
                f"the instruction {code!r} is not one of a checkpoint's" if code else "it ends early"
            )
        step(machine)
    raise PickleError(f"it has more than {MAX_OPCODES:,} instructions")


def _long(machine: Machine, form: str) -> None:
    count = machine.number(form)
    if not 0 <= count <= _MAX_INT:
        raise PickleError("a number is too long")
    machine.push(int.from_bytes(machine.take(count), "little", signed=True))


def _whole(text: str) -> int | bool:
    if text in ("00", "01"):
        return text == "01"
    try:
        return int(text.removesuffix("L"))
    except ValueError as error:
        raise PickleError("a number is none") from error


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise PickleError("a number is none") from error


def _tuple(machine: Machine, count: int) -> None:
    values = [machine.pop() for _ in range(count)]
    machine.push(tuple(reversed(values)))


def _set_item(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _append_one(machine: Machine) -> None:
    value = machine.pop()
    machine.append([value])


def _dict_of(values: list[Any]) -> dict[Any, Any]:
    if len(values) % 2:
        raise PickleError("a key has no value")
    result: dict[Any, Any] = {}
    fill(result, zip(values[::2], values[1::2], strict=True))
    return result


def _reduce(machine: Machine) -> None:
    machine.call(machine.pop())


def _new_object_keywords(machine: Machine) -> None:
    machine.pop()
    machine.call(machine.pop())


def _stack_name(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.named(module, name)


def _text_name(machine: Machine) -> None:
    module = machine.line()
    machine.named(module, machine.line())


def _pop_one(machine: Machine) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.pop()


def _frozen_set(machine: Machine) -> None:
    machine.since_mark()
    machine.push(INERT)


def _text(form: str) -> Callable[[Machine], None]:
    return lambda m: m.push(decoded(m.take(m.number(form))))


def _bytes(form: str) -> Callable[[Machine], None]:
    return lambda m: m.push(m.take(m.number(form)))


_STEPS: Mapping[bytes, Callable[[Machine], Any]] = {
    b"\x80": lambda m: m.take(1),  # protocol
    b"\x95": lambda m: m.take(8),  # frame: its length is not needed
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"0": _pop_one,
    b"1": lambda m: m.since_mark(),
    b"2": lambda m: m.push(m.top()),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": lambda m: _long(m, "<B"),
    b"\x8b": lambda m: _long(m, "<i"),
    b"I": lambda m: m.push(_whole(m.line())),
    b"L": lambda m: m.push(_whole(m.line())),
    b"F": lambda m: m.push(_float(m.line())),
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    b"V": lambda m: m.push(m.line()),
    b"S": lambda m: m.push(m.line().strip("'\"")),
    b"X": _text("<I"),
    b"\x8c": _text("<B"),
    b"\x8d": _text("<Q"),
    b"T": _bytes("<I"),
    b"U": _bytes("<B"),
    b"B": _bytes("<I"),
    b"C": _bytes("<B"),
    b"\x8e": _bytes("<Q"),
    b"\x96": _bytes("<Q"),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.since_mark())),
    b"\x85": lambda m: _tuple(m, 1),
    b"\x86": lambda m: _tuple(m, 2),
    b"\x87": lambda m: _tuple(m, 3),
    b"]": lambda m: m.push([]),
    b"l": lambda m: m.push(m.since_mark()),
    b"a": _append_one,
    b"e": lambda m: m.append(m.since_mark()),
    b"}": lambda m: m.push({}),
    b"d": lambda m: m.push(_dict_of(m.since_mark())),
    b"s": _set_item,
    b"u": lambda m: m.set_items(m.since_mark()),
    b"\x8f": lambda m: m.push(INERT),  # a set
    b"\x90": lambda m: m.since_mark(),  # members of one
    b"\x91": _frozen_set,
    b"c": _text_name,
    b"\x93": _stack_name,
    b"R": _reduce,
    b"\x81": _reduce,  # an object by __new__
    b"\x92": _new_object_keywords,
    b"b": lambda m: m.build(),
    b"P": lambda m: m.persistent(m.line()),
    b"Q": lambda m: m.persistent(m.pop()),
    b"q": lambda m: m.remember(m.number("<B")),
    b"r": lambda m: m.remember(m.number("<I")),
    b"p": lambda m: m.remember(int(_whole(m.line()))),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"h": lambda m: m.recall(m.number("<B")),
    b"j": lambda m: m.recall(m.number("<I")),
    b"g": lambda m: m.recall(int(_whole(m.line()))),
}
