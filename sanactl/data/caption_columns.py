"""The captions of a table's rows, gathered while the rows are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanactl.data.captions import DEFAULT_COLUMNS, CaptionChoice, find_columns, parse_captions, text_of
from sanactl.errors import InputError

__all__ = ["CaptionColumns", "Captions"]

# Columns that an error can name.
_MOST_NAMED = 1000


class Captions:
    """The captions of N rows in each of the chosen columns.

    Attributes:
        choice: the columns with their weights.
        empty: how many rows have no text in any of them.
    """

    def __init__(self, choice: CaptionChoice, columns: Mapping[str, list[str]]) -> None:
        import pyarrow as pa

        self.choice = choice
        # Arrow's arrays hold a million captions in one piece, which processes that are forked share.
        self._columns = [pa.array(columns[c], pa.large_string()) for c in choice.columns]
        self.empty = sum(not any(texts) for texts in zip(*(columns[c] for c in choice.columns), strict=True))

    def of(self, row: int) -> list[str]:
        """The row's caption in each of the columns, "" where it has none."""
        return [column[row].as_py() for column in self._columns]

    def all(self) -> list[str]:
        """All captions, for a fingerprint."""
        return [text for column in self._columns for text in column.to_pylist()]


class CaptionColumns:
    """Rows of cells, of which the text in columns that can hold captions is kept.

    Args:
        asked: what `--captions` says; None: the first of `DEFAULT_COLUMNS` in which any row has text.
        name: of the data, for errors.
        default: columns to look in where none is asked for.
    """

    def __init__(self, asked: str | None, name: str, default: tuple[str, ...] = DEFAULT_COLUMNS) -> None:
        self.asked, self.name, self.default = asked, name, default
        wanted = default if asked is None else parse_captions(asked).columns
        self._texts: dict[str, list[str]] = {column: [] for column in wanted}
        self._faults: dict[str, InputError] = {}
        self._seen: dict[str, None] = {}
        self.rows = 0

    def add(self, cells: Mapping[str, Any], where: str) -> None:
        """Adds a row. A cell that is not text is an error only if its column is chosen."""
        self.rows += 1
        for column, texts in self._texts.items():
            try:
                texts.append(text_of(cells, column, where))
            except InputError as error:
                self._faults.setdefault(column, error)
                texts.append("")
        if len(self._seen) < _MOST_NAMED:
            for column, value in cells.items():
                if isinstance(value, Mapping):
                    self._seen.update(dict.fromkeys(f"{column}.{field}" for field in value))
                else:
                    self._seen[column] = None

    @property
    def found(self) -> bool:
        """Whether any row so far has text in a column that can be chosen."""
        return any(any(texts) for texts in self._texts.values())

    def choose(self) -> Captions:
        """The columns that are used, and the captions in them.

        Raises:
            InputError: a column is not there or holds no text, or no row has a caption.
        """
        choice = self._choice()
        for column in choice.columns:
            if column in self._faults:
                raise self._faults[column]
        found = Captions(choice, self._texts)
        if found.empty == self.rows:
            columns = " and ".join(choice.columns)
            raise InputError(
                f"{self.name}: no row has a caption: {columns} is empty in all {self.rows:,}",
                hint="write captions, or name another column with --captions",
            )
        return found

    def _choice(self) -> CaptionChoice:
        if self.asked is not None:
            return find_columns(self._seen, self.asked, self.name)
        for column, texts in self._texts.items():
            if column in self._faults or any(texts):
                return CaptionChoice((column,), (1.0,))
        # No column has text: take the first that is there, else say in an error which are.
        return find_columns(self._seen, None, self.name)
