"""The columns of a dataset: which fields of image records go into it, and of which type each is.

A table needs one type for each column, and records differ: a field can be a whole number in one and a fraction in the
next. So all records are looked at before the first row is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from sanactl.data.metadata import FILE_NAMES, IMAGE_PATHS
from sanactl.errors import InputError
from sanactl.records.jsonl import dump_json

__all__ = ["Column", "Columns", "public"]

MOST_COLUMNS = 1_000
# `kind` is a record's, paths are of this machine, and the others are columns that an export makes itself.
_LEFT_OUT = {"kind", "draft_path", *FILE_NAMES, *IMAGE_PATHS, "text", "label", "width", "height"}
# `datasets` takes columns of such names for files of a dataset.
_FILES = ("file_name", "file_names")
_FULL_PATH = re.compile(r"(?:~?/|file:|[A-Za-z]:\\)[^\s/\\]*[/\\]")


def public(record: Mapping[str, Any], texts: Iterable[str]) -> dict[str, Any]:
    """The fields of a record that a dataset gets as columns.

    Paths of images, and fields that are captions already, are left out. Of a full path to anything else, such as a
    checkpoint, the last part is kept.
    """
    out = _LEFT_OUT.union(texts)
    return {
        name: _shortened(value)
        for name, value in record.items()
        if value is not None and name not in out and not name.endswith(_FILES)
    }


def _shortened(value: Any) -> Any:
    if isinstance(value, str) and _FULL_PATH.match(value):
        return PureWindowsPath(value).name if "\\" in value else PurePosixPath(value).name
    if isinstance(value, dict):
        return {key: _shortened(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shortened(inner) for inner in value]
    return value


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if -(2**63) <= value < 2**63 else "json"
    if isinstance(value, float):
        return "float64"
    return "string" if isinstance(value, str) else "json"


@dataclass
class Column:
    """A column: its type, and what is known of its values.

    Attributes:
        type: bool, int64, float64, string, or json (a text of JSON, for nested and mixed values).
        filled: how many rows have a value.
        begins: the place of the first value, in bytes of records before it.
        low, high: of numbers.
        only: the value that all filled rows have, as JSON; None where they differ.
    """

    type: str
    begins: int = 0
    filled: int = 0
    low: float | None = None
    high: float | None = None
    only: str | None = None

    def add(self, value: Any) -> None:
        """Widens the type and the range to a further value."""
        found = _type_of(value)
        if found != self.type:
            self.type = "float64" if {found, self.type} == {"int64", "float64"} else "json"
        if found in ("int64", "float64"):
            self.low = value if self.low is None else min(self.low, value)
            self.high = value if self.high is None else max(self.high, value)
        shown = dump_json(value)
        self.only = shown if not self.filled or shown == self.only else None
        self.filled += 1

    def cell(self, value: Any) -> Any:
        """A value as this column stores it."""
        if value is None:
            return None
        if self.type == "json":
            return dump_json(value)
        return float(value) if self.type == "float64" else value


@dataclass
class Columns:
    """The columns of a dataset beside image and text, by name, in the order in which fields are first met."""

    by_name: dict[str, Column] = field(default_factory=dict)

    def add(self, fields: Mapping[str, Any], at: int) -> None:
        """Looks at the fields of a further record, which begins at byte `at`.

        Raises:
            InputError: more than a thousand names.
        """
        for name, value in fields.items():
            column = self.by_name.get(name)
            if column is None:
                if len(self.by_name) >= MOST_COLUMNS:
                    raise InputError(
                        f"the records have more than {MOST_COLUMNS:,} different fields",
                        hint="a dataset has a column for each; take fields away, for instance with jq",
                    )
                column = self.by_name[name] = Column(_type_of(value), at)
            column.add(value)

    def cells(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A record's fields as a row: a cell for each column, None where it has nothing."""
        return {name: column.cell(fields.get(name)) for name, column in self.by_name.items()}

    @property
    def types(self) -> dict[str, str]:
        """Each column's type as Arrow and `datasets` name it."""
        return {n: "string" if c.type == "json" else c.type for n, c in self.by_name.items()}
