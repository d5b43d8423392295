"""Which caption an image is trained with: the text column, or one of several drawn by weight."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanactl.errors import InputError, UsageError

__all__ = ["DEFAULT_COLUMNS", "CaptionChoice", "drawn", "find_columns", "parse_captions", "text_of"]

# Looked for in this order where no column is named. `txt` and the fields of `json` are a webdataset's.
DEFAULT_COLUMNS = ("text", "caption", "prompt", "txt", "json.text", "json.caption", "json.prompt")
_HALVES = re.compile("[\ud800-\udfff]")
# Keeps the caption's draw apart from what else is drawn from the same seed and position.
_STREAM = 0xCA9


@dataclass(frozen=True)
class CaptionChoice:
    """Columns of captions with their weights.

    Attributes:
        columns: names; `a.b` is field b of column a.
        weights: how often each is taken, relative to each other.
    """

    columns: tuple[str, ...]
    weights: tuple[float, ...]

    def pick(
        self, filled: Sequence[bool], seed: int, position: int, scores: Sequence[float] = ()
    ) -> int | None:
        """The column for the example at a position of the stream: a function of (seed, position) alone.

        Args:
            filled: for each column whether this example has text in it; the weights of those share what the
                others leave.
            scores: of the example's captions; see `sanactl.data.scored_captions.ScoredChoice`.

        Returns:
            the column's number, or None where all are empty.
        """
        return drawn(np.where(filled, self.weights, 0.0), seed, position)

    @property
    def identity(self) -> str:
        """A text that differs where the choice differs."""
        return str(self)

    def __str__(self) -> str:
        return ",".join(f"{c}:{w:g}" for c, w in zip(self.columns, self.weights, strict=True))


def drawn(weights: NDArray[np.float64], seed: int, position: int) -> int | None:
    """A column drawn by its weight, a function of (seed, position); None where all weights are 0."""
    total = float(weights.sum())
    if not total:
        return None
    if np.count_nonzero(weights) == 1:
        return int(np.argmax(weights))
    draw = np.random.default_rng([seed, position, _STREAM]).random() * total
    # Only among columns of some weight: by rounding it could be an empty one.
    (some,) = np.nonzero(weights)
    place = int(np.searchsorted(np.cumsum(weights[some]), draw, side="right"))
    return int(some[min(place, len(some) - 1)])


def parse_captions(text: str) -> CaptionChoice:
    """Reads "text:0.7,short:0.3"; a column without a weight has weight 1.

    Raises:
        UsageError: a weight is not a positive number, or a column comes twice.
    """
    columns, weights = [], []
    for part in text.split(","):
        name, colon, number = part.strip().partition(":")
        try:
            weight = float(number) if colon else 1.0
        except ValueError:
            weight = math.nan
        if not name or not 0 < weight < math.inf or name in columns:
            raise UsageError(
                f"--captions {text}: {part.strip() or 'an empty part'} is not a column with a weight",
                hint="write column:weight, as in text:0.7,short:0.3",
            )
        columns.append(name)
        weights.append(weight)
    return CaptionChoice(tuple(columns), tuple(weights))


def find_columns(available: Iterable[str], asked: str | None, name: str) -> CaptionChoice:
    """The columns that were asked for, or the first of `DEFAULT_COLUMNS` that is there.

    Args:
        available: the columns, fields of columns as `a.b`.
        asked: what `--captions` says, or None.
        name: of the data, for errors.

    Raises:
        InputError: a column is not there, or none can serve.
    """
    there = list(available)
    if asked is not None:
        choice = parse_captions(asked)
        for column in choice.columns:
            if column not in there:
                raise InputError(
                    f"{name}: has no column {column!r} for --captions",
                    hint=f"it has {', '.join(there)}" if there else "it has no columns but images",
                )
        return choice
    for column in DEFAULT_COLUMNS:
        if column in there:
            return CaptionChoice((column,), (1.0,))
    if not there:
        raise InputError(
            f"{name}: has images but no captions",
            hint="put a metadata.jsonl beside the images, with their file_name and text on each line",
        )
    raise InputError(
        f"{name}: has images but no captions: no column {', '.join(DEFAULT_COLUMNS[:3])} or txt beside {', '.join(there)}",
        hint="name a column with --captions, or put a metadata.jsonl with file_name and text beside the images",
    )


def text_of(row: Mapping[str, Any], column: str, where: str) -> str:
    """A row's text in a column, stripped; "" where there is none.

    Args:
        row: its cells; an `InputError` in place of a cell tells why that cannot be read.

    Raises:
        InputError: the cell is not text, or cannot be read.
    """
    value = _cell(row, column)
    if value is None:
        return ""
    if isinstance(value, InputError):
        raise value
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise InputError(f"{where}: column {column} is not UTF-8 text") from None
    if not isinstance(value, str):
        raise InputError(f"{where}: column {column} holds a {type(value).__name__}, not text")
    if not value.isascii() and _HALVES.search(value):
        # JSON can escape half of a pair of surrogates, which is no character.
        raise InputError(f"{where}: column {column} is not Unicode text (half of a surrogate pair)")
    return value.strip()


def _cell(row: Mapping[str, Any], column: str) -> Any:
    """The cell of a column, or field b.c of column a; of several possible columns the one with the longest name."""
    if column in row:
        return row[column]
    parts = column.split(".")
    for length in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:length])
        if name in row:
            value: Any = row[name]
            for part in parts[length:]:
                if isinstance(value, InputError):
                    return value
                value = value.get(part) if isinstance(value, Mapping) else None
            return value
    return None
