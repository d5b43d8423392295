"""`filter`: passes on the image records that meet conditions, unchanged."""

from __future__ import annotations

import difflib
import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sanactl.data.bad import check_bad
from sanactl.errors import InputError
from sanactl.files.json_values import brief
from sanactl.records.records import Record
from sanactl.scoring.condition import Condition
from sanactl.scoring.near import number_of, without_near

if TYPE_CHECKING:
    from sanactl.scoring.near import Likeness

__all__ = ["Condition", "Filter", "filter_records"]

Count = Callable[[str], None]
_NAMED = 20  # fields of the records in an error
_MOST_FIELDS = 1000  # that are remembered for it


@dataclass(frozen=True)
class Filter:
    """What records have to satisfy. A record is held against these in their order, so `sample` draws among the rest.

    Attributes:
        conditions: all have to hold.
        correct: `correct` of `eval geneval` has to be true.
        likeness: of images that are alike one passes: that with the largest `by`, without `by` the first.
        per_prompt: how many records of a prompt pass, the first that come (the paper's training set has 10, section 3.3).
        top: how many records of a prompt pass, those with the largest `by`, of equals the first. The stream is read to
            its end first, and no more than these are held.
        by: a field that is a number; for `top` it is `judge_score` where none is given.
        sample: how many records pass in all, drawn at random, every record with the same probability. The stream is
            read to its end first, and no more than these are held.
        seed: of the sample. With one seed a smaller sample of the same records is a part of a larger one.
        max_bad: how many images `likeness` may find unreadable; their records do not pass.
    """

    conditions: Sequence[Condition] = ()
    correct: bool = False
    likeness: Likeness | None = None
    per_prompt: int | None = None
    top: int | None = None
    by: str | None = None
    sample: int | None = None
    seed: int = 0
    max_bad: int = 0

    @property
    def fields(self) -> set[str]:
        """The fields that some record needs to have."""
        named = {field for condition in self.conditions for field in condition.fields}
        by = {self.by or "judge_score"} if self.top is not None else {self.by} if self.by else set()
        return named | ({"correct"} if self.correct else set()) | by


def filter_records(
    records: Iterable[Record],
    wanted: Filter,
    *,
    count: Count = lambda what: None,
    tell: Count = lambda line: None,
) -> Iterator[Record]:
    """Passes on the records that satisfy everything.

    Args:
        records: image records.
        wanted: what they have to satisfy.
        count: called with "read" for every record, with "passed" for one that passes, for one that is dropped with the
            option that did so ("--where"), and with "damaged" for one whose image cannot be read.
        tell: called with a line about each damaged image.

    Yields:
        records as they came, in their order.

    Raises:
        InputError: a named field is in no record at all, or cannot be compared; one image too many cannot be read.
    """
    stream = _that_meet(records, wanted, count)
    if wanted.likeness is not None:
        bad = _limit(wanted.max_bad, count, tell)
        stream = without_near(stream, wanted.likeness, wanted.by, count, bad)
    if wanted.top is not None:
        most = min(wanted.top, wanted.per_prompt or wanted.top)
        stream = _best(stream, most, wanted.by or "judge_score", count)
    elif wanted.per_prompt is not None:
        stream = _first(stream, wanted.per_prompt, count)
    if wanted.sample is not None:
        stream = _sample(stream, wanted.sample, wanted.seed, count)
    for record in stream:
        count("passed")
        yield record


def _limit(max_bad: int, count: Count, tell: Count) -> Callable[[InputError], None]:
    """What takes the errors of unreadable images: it counts them, and raises the one that is too many."""
    found = 0

    def bad(error: InputError) -> None:
        nonlocal found
        found += 1
        check_bad(found, max_bad, error)
        count("damaged")
        tell(f"left out: {error.message}")

    return bad


def _that_meet(records: Iterable[Record], wanted: Filter, count: Count) -> Iterator[Record]:
    """The records that meet the conditions."""
    absent, read = wanted.fields, 0
    known: dict[str, None] = {}
    for record in records:
        read += 1
        count("read")
        absent -= record.keys()
        if absent and len(known) < _MOST_FIELDS:
            known.update(dict.fromkeys(record))
        if wanted.correct and record.get("correct") is not True:
            count("--correct")
        elif not all(condition(record) for condition in wanted.conditions):
            count("--where")
        else:
            yield record
    if read and absent:
        name = min(absent)
        raise InputError(f"no record has the field {name!r}", hint=_hint(name, list(known)))


def _hint(name: str, known: Sequence[str]) -> str:
    """What to do about a field that no record has."""
    if name in ("correct", "judge_score"):
        return "sanactl eval geneval gives correct, sanactl judge --all gives judge_score"
    lower = {field.lower(): field for field in known}
    if close := difflib.get_close_matches(name[:200].lower(), lower):
        return f"did you mean {' or '.join(brief(lower[field])[1:-1] for field in close)}?"
    more = f" and {len(known) - _NAMED:,} more" if len(known) > _NAMED else ""
    return f"the records have {', '.join(brief(field)[1:-1] for field in known[:_NAMED])}{more}"


def _first(records: Iterable[Record], most: int, count: Count) -> Iterator[Record]:
    """The first `most` records of each prompt."""
    kept = Counter[tuple[str, str]]()
    for record in records:
        prompt = _prompt(record)
        if kept[prompt] < most:
            kept[prompt] += 1
            yield record
        else:
            count("--per-prompt")


def _best(records: Iterable[Record], most: int, by: str, count: Count) -> Iterator[Record]:
    """The `most` records of each prompt with the largest `by`, in the order in which they came."""
    # The worst first: the smallest value, of equals the last.
    groups: dict[tuple[str, str], list[tuple[float, int, Record]]] = {}
    for place, record in enumerate(records):
        value = number_of(record, by)
        if value is None:
            count("--top")
            continue
        group = groups.setdefault(_prompt(record), [])
        if len(group) < most:
            heapq.heappush(group, (value, -place, record))
        else:
            heapq.heappushpop(group, (value, -place, record))
            count("--top")
    chosen = [entry for group in groups.values() for entry in group]
    return (record for _, _, record in sorted(chosen, key=lambda entry: -entry[1]))


def _sample(records: Iterable[Record], most: int, seed: int, count: Count) -> Iterator[Record]:
    """`most` of the records, in their order: every record draws a number, and those with the smallest ones pass."""
    draw = random.Random(seed).random
    held: list[tuple[float, int, Record]] = []  # the largest number first
    for place, record in enumerate(records):
        entry = (-draw(), -place, record)
        if len(held) < most:
            heapq.heappush(held, entry)
        else:
            heapq.heappushpop(held, entry)
            count("--sample")
    return (record for _, _, record in sorted(held, key=lambda entry: -entry[1]))


def _prompt(record: Record) -> tuple[str, str]:
    return str(record.get("prompt_id", record.get("id"))), str(record["prompt"])
