"""Conditions on a record's fields, for `filter --where`."""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable
from typing import Any

from sanactl.errors import InputError, UsageError

__all__ = ["Condition"]

Record = dict[str, Any]
_LONGEST = 2000
_DEEPEST = 50
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}

_SIGNS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip
_KINDS: tuple[tuple[Any, str], ...] = (
    (bool, "the truth value"), (int | float, "the number"), (str, "the text"), (list, "a list"), (dict, "an object"),
)  # fmt: skip
_ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


class _Missing(Exception):
    """A record lacks a field that a condition names."""


class Condition:
    """A condition on a record's fields: comparisons, `and`, `or`, `not`, as Python writes them, and nothing else.

    Names are fields, `a.b` is field b of a; values are numbers, "text", true, false, null and lists of these. A record
    that lacks a field, or has null there, fails the comparison that names it. The text is never run as code.

    Attributes:
        fields: those that it names.

    Raises:
        UsageError: the text is not such a condition.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            if len(text) > _LONGEST:
                raise ValueError("too long")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd escapes in a text, which are the user's own
                self._tree = ast.parse(text.strip(), mode="eval").body
            if _depth(self._tree) > _DEEPEST:
                raise ValueError("nested too deep")
            self.fields = sorted(_check(self._tree))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            what = error.msg if isinstance(error, SyntaxError) else str(error)
            raise UsageError(
                f"--where {text[:80]!r} is no condition ({what})",
                hint="write it like 'judge_score > 0.8 and tag == \"colors\"'",
            ) from None

    def __call__(self, record: Record) -> bool:
        """Whether a record passes.

        Raises:
            InputError: a field's value cannot be compared in this way.
        """
        try:
            return bool(_truth(self._tree, record))
        except TypeError as error:
            hint = "a number stands in a record without quotation marks" if "text" in str(error) else None
            raise InputError(
                f"{record.get('path')}: --where {self.text[:80]!r}: {error}", hint=hint
            ) from None


def _depth(tree: ast.AST) -> int:
    """How deep an expression is nested."""
    deepest, stack = 0, [(tree, 1)]
    while stack:
        node, depth = stack.pop()
        deepest = max(deepest, depth)
        stack += [(child, depth + 1) for child in ast.iter_child_nodes(node)]
    return deepest


_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}


def _check(node: ast.expr) -> set[str]:
    """The fields that a condition names.

    Raises:
        ValueError: it has a part that conditions do not allow.
    """
    if isinstance(node, ast.BoolOp):
        return set().union(*(_check(value) for value in node.values))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        return _check(node.operand)
    if isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops):
        return _check(node.left).union(*(_check(part) for part in node.comparators))
    if isinstance(node, ast.List | ast.Tuple):
        return set().union(*(_check(part) for part in node.elts))
    if isinstance(node, ast.Name):
        return set() if node.id in _WORDS else {node.id}
    if isinstance(node, ast.Attribute):
        (base,) = _check(node.value) or {""}
        if isinstance(node.value, ast.Name | ast.Attribute) and base:
            return {base}
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str | None):
        return set()
    raise ValueError(f"{ast.unparse(node)[:60]} is not allowed")


def _truth(node: ast.expr, record: Record) -> Any:
    """The value of a part of a condition; one that compares a missing field is false."""
    if isinstance(node, ast.BoolOp):
        together = all if isinstance(node.op, ast.And) else any
        return together(_truth(value, record) for value in node.values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return not _truth(node.operand, record)
    try:
        if not isinstance(node, ast.Compare):
            return _value(node, record)
        left = _value(node.left, record)
        for op, part in zip(node.ops, node.comparators, strict=True):
            right = _value(part, record)
            # A field that is null is as good as none: nothing is larger or smaller, and nothing is in it.
            if (left is None and isinstance(op, _ORDER)) or (
                right is None and isinstance(op, (*_ORDER, ast.In))
            ):
                return False
            try:
                if not _COMPARE[type(op)](left, right):
                    return False
            except TypeError:
                sign = _SIGNS[type(op)]
                raise TypeError(f"{_named(left)} {sign} {_named(right)} has no answer") from None
            left = right
        return True
    except _Missing:
        return False


def _named(value: Any) -> str:
    """A compared value for an error: its kind, and where it is short itself."""
    kind = next((name for types, name in _KINDS if isinstance(value, types)), "null")
    if value is None or isinstance(value, list | dict):
        return kind
    return f"{kind} {repr(value)[:40] if isinstance(value, str) else str(value)[:40]}"


def _value(node: ast.expr, record: Record) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(part, record) for part in node.elts]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _value(node.operand, record)
        if not isinstance(value, int | float):
            raise TypeError(f"{_named(value)} has no negative")
        return -value
    if isinstance(node, ast.Name):
        if node.id in _WORDS:
            return _WORDS[node.id]
        if node.id not in record:
            raise _Missing
        return record[node.id]
    if isinstance(node, ast.Attribute):
        holder = _value(node.value, record)
        if not isinstance(holder, dict) or node.attr not in holder:
            raise _Missing
        return holder[node.attr]
    return _truth(node, record)
