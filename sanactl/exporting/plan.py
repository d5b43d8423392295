"""The plan of an export: what the dataset holds, in which columns, and where each shard begins."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sanactl.exporting.columns import Columns, public
from sanactl.exporting.rows import Picture, Row, label_of, texts_of
from sanactl.exporting.settings import ExportSettings
from sanactl.files.paths import from_json

__all__ = ["ExportPlan", "Shard", "unpacked"]


@dataclass(frozen=True)
class Shard:
    """A run of rows that are written together.

    Attributes:
        number: from 0.
        first: its first row's number.
        rows: how many it has.
        offset: the byte in the file of kept records where they begin.
    """

    number: int
    first: int
    rows: int
    offset: int


@dataclass
class ExportPlan:
    """What an export writes.

    Attributes:
        settings: what was asked for.
        kept: the file of the records that go into the dataset.
        labelled: whether each row has a label.
        columns: of the dataset, beside image and captions.
        shards: in their order.
        images: how many there are, and nbytes: the size of their files.
        skipped: how many records were left out.
        tasks: images by the records' `tag`.
        checkpoints: images by (checkpoint, digest), as the records name them.
        suffixes: images by suffix.
        key: a digest of everything that the dataset depends on.
        first: the first record.
    """

    settings: ExportSettings
    kept: Path
    labelled: bool = False
    columns: Columns = field(default_factory=Columns)
    shards: list[Shard] = field(default_factory=list)
    images: int = 0
    nbytes: int = 0
    skipped: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    checkpoints: Counter[tuple[str, str]] = field(default_factory=Counter)
    suffixes: Counter[str] = field(default_factory=Counter)
    key: str = ""
    first: dict[str, Any] = field(default_factory=dict)

    @property
    def schema(self) -> dict[str, str]:
        """The type of each column beside the image."""
        further = dict.fromkeys(self.settings.texts[1:], "string")
        return {"text": "string", **further, "width": "int64", "height": "int64", **self.columns.types}

    def rows(self, shard: Shard | None = None) -> Iterator[Row]:
        """The rows of a shard, or all."""
        start = 0 if shard is None else shard.first
        for number, (record, picture) in enumerate(self._kept(shard), start):
            yield Row(
                number,
                Path(record["path"]),
                picture,
                texts_of(record, self.settings.texts),
                label_of(record, self.settings.answer) if self.labelled else None,
                self.columns.cells(public(record, self.settings.texts)),
            )

    def records(self) -> Iterator[dict[str, Any]]:
        """The records of the images in the dataset, as they came."""
        return (record for record, _ in self._kept(None))

    def _kept(self, shard: Shard | None) -> Iterator[tuple[dict[str, Any], Picture]]:
        with self.kept.open("rb") as stream:
            stream.seek(0 if shard is None else shard.offset)
            for line in itertools.islice(stream, None if shard is None else shard.rows):
                yield unpacked(line)


def unpacked(line: bytes) -> tuple[dict[str, Any], Picture]:
    """A record and what is known of its image, from a line of the file of kept records.

    Raises:
        ValueError, KeyError, TypeError: it is no such line.
    """
    found = json.loads(line)
    return {**found["record"], "path": from_json(found["record"]["path"])}, Picture(**found["picture"])
