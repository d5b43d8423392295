"""`filter`: passes on the image records that meet conditions, unchanged."""

from __future__ import annotations

import ast
import heapq
import operator
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from sanactl.errors import InputError, UsageError

__all__ = ["Condition", "filter_records"]

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
            raise InputError(f"{record.get('path')}: --where {self.text!r}: {error}") from None


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
            if not _COMPARE[type(op)](left, right):
                return False
            left = right
        return True
    except _Missing:
        return False


def _value(node: ast.expr, record: Record) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(part, record) for part in node.elts]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, record)
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


def filter_records(
    records: Iterable[Record],
    *,
    conditions: Sequence[Condition] = (),
    correct: bool = False,
    per_prompt: int | None = None,
    top: int | None = None,
    by: str = "judge_score",
    count: Callable[[str], None] = lambda what: None,
) -> Iterator[Record]:
    """Passes on the records that satisfy everything.

    Args:
        records: image records.
        conditions: all have to hold.
        correct: `correct` of `eval geneval` has to be true.
        per_prompt: how many records of a prompt pass, the first that come (the paper's training set has 10, section 3.3).
        top: how many records of a prompt pass, those with the largest `by`, of equals the first. The stream is read to
            its end first, and no more than these are held.
        by: a field that is a number.
        count: called with "read" for every record and "passed" for one that passes.

    Yields:
        records as they came, in their order.

    Raises:
        InputError: a named field is in no record at all, or cannot be compared.
    """
    wanted = {field for condition in conditions for field in condition.fields}
    wanted |= ({"correct"} if correct else set()) | ({by} if top is not None else set())
    absent, read, kept = set(wanted), 0, Counter[tuple[str, str]]()
    best = _Best(min(top, per_prompt or top), by) if top is not None else None
    for record in records:
        read += 1
        count("read")
        absent -= record.keys()
        if correct and record.get("correct") is not True:
            continue
        if not all(condition(record) for condition in conditions):
            continue
        if best is not None:
            best.add(record)
            continue
        if per_prompt is not None and kept[_prompt(record)] >= per_prompt:
            continue
        kept[_prompt(record)] += 1
        count("passed")
        yield record
    if read and absent:
        raise InputError(
            f"no record has the field {sorted(absent)[0]!r}",
            hint="sanactl eval geneval gives correct, sanactl judge --all gives judge_score",
        )
    for record in best or ():
        count("passed")
        yield record


class _Best:
    """The `most` records of each prompt with the largest `by`; iterates over them in the order in which they came."""

    def __init__(self, most: int, by: str) -> None:
        self._most, self._by, self._count = most, by, 0
        # The worst first: the smallest value, of equals the last.
        self._groups: dict[tuple[str, str], list[tuple[float, int, Record]]] = {}

    def add(self, record: Record) -> None:
        value = record.get(self._by)
        self._count += 1
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{record.get('path')}: {self._by} is {str(value)[:60]!r}, not a number")
        group = self._groups.setdefault(_prompt(record), [])
        entry = (value, -self._count, record)
        if len(group) < self._most:
            heapq.heappush(group, entry)
        else:
            heapq.heappushpop(group, entry)

    def __iter__(self) -> Iterator[Record]:
        chosen = [entry for group in self._groups.values() for entry in group]
        return (record for _, _, record in sorted(chosen, key=lambda entry: -entry[1]))


def _prompt(record: Record) -> tuple[str, str]:
    return str(record.get("prompt_id", record.get("id"))), str(record["prompt"])
