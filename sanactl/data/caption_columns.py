"""The captions of a table's rows, gathered while the rows are read."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanactl.data.captions import DEFAULT_COLUMNS, CaptionChoice, find_columns, parse_captions, text_of
from sanactl.data.scored_captions import Score, ScoredChoice, ScoreRule, score_number, scores_in
from sanactl.errors import InputError

__all__ = ["CaptionColumns", "Captions"]

# Columns that an error can name.
_MOST_NAMED = 1000


class Captions:
    """The captions of N rows in each of the chosen columns.

    Attributes:
        choice: the columns with their weights, or with the rule for their scores.
        empty: how many rows have no text in any of them.
        rows: numbers of the rows that are left, where the rule leaves some out; else None.
        left_out: lines about what is not used.
    """

    def __init__(
        self,
        choice: CaptionChoice,
        columns: Mapping[str, list[str]],
        scores: NDArray[np.float64] | None = None,
        rows: NDArray[np.int64] | None = None,
        left_out: Sequence[str] = (),
    ) -> None:
        import pyarrow as pa

        self.choice, self.rows, self.left_out = choice, rows, list(left_out)
        texts = [columns[c] if rows is None else [columns[c][row] for row in rows] for c in choice.columns]
        # Arrow's arrays hold a million captions in one piece, which processes that are forked share.
        self._columns = [pa.array(column, pa.large_string()) for column in texts]
        self._scores = scores if rows is None or scores is None else scores[rows]  # [N, scores of a row]
        self.empty = sum(not any(row) for row in zip(*texts, strict=True))

    def of(self, row: int) -> list[str]:
        """The row's caption in each of the columns, "" where it has none."""
        return [column[row].as_py() for column in self._columns]

    def scores(self, row: int) -> Sequence[float]:
        """The row's scores, NaN where there is none; none at all without a rule for them."""
        return () if self._scores is None else self._scores[row].tolist()

    def all(self) -> list[str]:
        """All captions, and a digest of their scores, for a fingerprint."""
        texts = [text for column in self._columns for text in column.to_pylist()]
        return texts if self._scores is None else [*texts, hashlib.sha256(self._scores.tobytes()).hexdigest()]


class CaptionColumns:
    """Rows of cells, of which the text in columns that can hold captions is kept.

    Args:
        asked: what `--captions` says; None: the first of `DEFAULT_COLUMNS` in which any row has text, and with a `rule`
            the captions with scores.
        name: of the data, for errors.
        default: columns to look in where none is asked for.
        rule: of the choice by scores; None draws by weight.
    """

    def __init__(
        self,
        asked: str | None,
        name: str,
        default: tuple[str, ...] = DEFAULT_COLUMNS,
        rule: ScoreRule | None = None,
    ) -> None:
        self.asked, self.name, self.default, self.rule = asked, name, default, rule
        wanted = default if asked is None else parse_captions(asked).columns
        self._texts: dict[str, list[str]] = {column: [] for column in wanted}
        self._faults: dict[str, InputError] = {}
        self._seen: dict[str, None] = {}
        self._scores: dict[tuple[str, str | None], array[float]] = {}
        self._not_finite = 0
        self.rows = 0

    def add(self, cells: Mapping[str, Any], where: str, scores: Iterable[Score] | None = None) -> None:
        """Adds a row. A cell that is not text is an error only if its column is chosen.

        Args:
            scores: of its captions; None takes those among the cells.

        Raises:
            InputError: a score is no number.
        """
        self.rows += 1
        for column, texts in self._texts.items():
            _pad(texts, self.rows - 1, "")
            texts.append(self._text(cells, column, where))
        if len(self._seen) < _MOST_NAMED:
            for column, value in cells.items():
                if isinstance(value, Mapping):
                    self._seen.update(dict.fromkeys(f"{column}.{field}" for field in value))
                else:
                    self._seen[column] = None
        if self.rule is not None:
            for score in scores_in(cells) if scores is None else scores:
                self._add_score(score, cells, where)

    def _text(self, cells: Mapping[str, Any], column: str, where: str) -> str:
        try:
            return text_of(cells, column, where)
        except InputError as error:
            self._faults.setdefault(column, error)
            return ""

    def _add_score(self, score: Score, cells: Mapping[str, Any], where: str) -> None:
        if score.column is not None and score.column not in self._texts:
            if self.asked is not None:
                return
            text = self._text(cells, score.column, where)
            if not text:
                return
            # Rows before this one have no score of this caption, so that their text does not matter.
            self._texts[score.column] = [""] * (self.rows - 1) + [text]
        number = score_number(score, where)
        if number is not None and math.isfinite(number):
            values = self._scores.setdefault((score.source, score.column), array("d"))
            _pad(values, self.rows - 1, math.nan)
            values.append(number)
        elif number is not None:
            self._not_finite += 1

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
        found = Captions(choice, self._texts) if self.rule is None else self._scored(choice, self.rule)
        for column in found.choice.columns:
            if column in self._faults:
                raise self._faults[column]
        if found.empty == (self.rows if found.rows is None else len(found.rows)):
            columns = " and ".join(found.choice.columns)
            raise InputError(
                f"{self.name}: no row has a caption: {columns} is empty in all {self.rows:,}",
                hint="write captions, or name another column with --captions",
            )
        return found

    def _choice(self) -> CaptionChoice:
        if self.asked is not None:
            return find_columns(self._seen, self.asked, self.name)
        for column in self.default:
            if column in self._faults or any(self._texts[column]):
                return CaptionChoice((column,), (1.0,))
        # No column has text: take the first that is there, else say in an error which are.
        return find_columns(self._seen, None, self.name)

    def _scored(self, choice: CaptionChoice, rule: ScoreRule) -> Captions:
        """The captions with scores beside the first column of a choice, without the rows that score too little."""
        first = choice.columns[0]
        if self.asked is not None:  # a score without a name is that of the caption that is the default
            first = next((column for column in self.default if column in choice.columns), first)
        named = {key: first if key[1] is None else key[1] for key in self._scores}
        columns = list(choice.columns)
        if self.asked is None:
            columns = list(dict.fromkeys([*columns, *named.values()]))
        for column in columns:
            if "," in column or ":" in column:
                raise InputError(f"{self.name}: a caption's name has a comma or a colon: {column[:60]!r}")
            _pad(self._texts[column], self.rows, "")
        sources = [key for key, column in named.items() if column in columns]
        if not sources:
            raise InputError(
                f"{self.name}: --caption-choice {rule}: no caption has a score",
                hint="sanactl eval clip gives image records their clip_score",
            )
        scores = np.full((self.rows, len(sources)), np.nan)
        for number, key in enumerate(sources):
            scores[: len(self._scores[key]), number] = self._scores[key]
        scored = tuple(columns.index(named[key]) for key in sources)
        found = ScoredChoice(tuple(columns), (1.0,) * len(columns), rule, scored)
        left_out = [f"{self._not_finite:,} scores that are not finite"] if self._not_finite else []
        rows = np.flatnonzero(~(_of_column(scores, scored, columns.index(first)) < rule.least))
        if not len(rows):
            raise InputError(
                f"{self.name}: all of its images have a clip_score below {rule.least:g}",
                hint="--min-clip-score 0 keeps them",
            )
        if len(rows) == self.rows:
            return Captions(found, self._texts, scores, left_out=left_out)
        left_out.append(f"{self.rows - len(rows):,} images with a clip_score below {rule.least:g}")
        return Captions(found, self._texts, scores, rows, left_out)


def _of_column(scores: NDArray[np.float64], scored: Sequence[int], wanted: int) -> NDArray[np.float64]:
    """[rows] The score of a column's caption, NaN where there is none; of several the first."""
    found: NDArray[np.float64] = np.full(len(scores), np.nan)
    for number, column in enumerate(scored):
        if column == wanted:
            found = np.where(np.isnan(found), scores[:, number], found)
    return found


def _pad(values: Any, length: int, filler: Any) -> None:
    """Brings a list or an array to a length."""
    values.extend([filler] * (length - len(values)))
