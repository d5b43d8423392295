"""Leaving prompts out of a drawing by their meaning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sanactl.prompts.meaning import meaning, meanings, texts_of
from sanactl.prompts.read_text import normal_text
from sanactl.records.records import Record

__all__ = ["Excluded"]


class Excluded:
    """The prompts that must not be drawn.

    Attributes:
        unread: of all prompts added so far, how many are of no known grammar, so that only equal words exclude.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self.unread = 0
        self._meanings: set[str] = set()
        self._words: set[str] = set()
        self.add(records)

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Exclude what these prompt records mean, too."""
        for record in records:
            keys = meanings(record)
            self.unread += all(key.startswith("text: ") for key in keys)
            self._meanings |= keys
            self._words |= {normal_text(text) for text in texts_of(record)}

    def __bool__(self) -> bool:
        return bool(self._meanings)

    def means_one(self, record: Record) -> bool:
        """Whether a record means what an excluded prompt means."""
        return meaning(record) in self._meanings

    def by_words(self, tags: Iterable[str]) -> Callable[[Record], bool]:
        """As `means_one`, but a prompt of these tasks is excluded by its words only."""
        held = {*tags}

        def is_excluded(record: Record) -> bool:
            return (
                normal_text(record["prompt"]) in self._words
                if record["tag"] in held
                else self.means_one(record)
            )

        return is_excluded
