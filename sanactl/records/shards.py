"""Shards: one command's work as N independent jobs, `--shard 0/N` to `--shard N-1/N`.

The work is a list of groups: prompts, or the images of a prompt. Job I takes group I and every N-th after it. Its output is
the records of its groups, as a run without `--shard` writes them, and a last record of the kind `shard`:

    {"kind": "shard", "shard": "0/3", "command": "judge", "key": ..., "groups": 120, "taken": 40, "records": 160,
     "places": [[first, step, groups, records of each], ...], "digest": "sha256:..."}

`key` is a digest of the settings and of the whole input, `groups` counts the groups of all jobs and `taken` those of this
one. `places` says where the records belong: a run without `--shard` writes groups by rising place. `digest` is that of the
lines before. So one file, or several behind each other (`cat`), tell whether anything is missing; see
`sanactl.records.merge`. Other commands pass over the record.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sanactl.errors import UsageError
from sanactl.files.content import json_digest
from sanactl.records.records import SHARD, Record, dumps
from sanactl.version import __version__

__all__ = ["Ending", "Runs", "Shard", "Taken", "Whole", "ranked", "read_shard", "shard_stem"]

MOST = 100_000
_NAME = re.compile(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*")


@dataclass(frozen=True)
class Shard:
    """One of several jobs.

    Attributes:
        part: its number, from 0.
        of: how many there are.
    """

    part: int
    of: int

    def __str__(self) -> str:
        return f"{self.part}/{self.of}"

    @property
    def name(self) -> str:
        """For file names: "0-of-3"."""
        return f"{self.part}-of-{self.of}"

    def takes(self, group: int) -> bool:
        """Whether a group of this number, from 0, is this job's."""
        return group % self.of == self.part


def read_shard(text: str | None) -> Shard | None:
    """The value of `--shard`.

    Raises:
        UsageError: it is no I/N with I from 0 to N - 1.
    """
    if text is None:
        return None
    found = _NAME.fullmatch(text)
    hint = "give I/N, job I of N jobs, with I from 0 to N - 1: --shard 0/4 to --shard 3/4"
    if found is None:
        raise UsageError(f"--shard {text[:60]!r} is not I/N", hint=hint)
    part, of = int(found[1]), int(found[2])
    if not 1 <= of <= MOST:
        raise UsageError(f"--shard {part}/{of}: the number of jobs is from 1 to {MOST:,}", hint=hint)
    if part >= of:
        raise UsageError(f"--shard {part}/{of}: there is no such job; the first one is 0/{of}", hint=hint)
    return Shard(part, of)


def shard_stem(stem: str, shard: Shard | None) -> str:
    """The name of an output file, without its suffix: "judge", or "judge.0-of-3"."""
    return stem if shard is None else f"{stem}.{shard.name}"


@dataclass(frozen=True)
class Whole:
    """What a job knows of all jobs' work, at its end.

    Attributes:
        groups: how many there are.
        taken: how many of them are this job's.
        inputs: a digest of the whole input.
    """

    groups: int
    taken: int
    inputs: str = ""


@dataclass
class Taken:
    """The records of a whole input of which a job takes its part: every N-th `size` records.

    Attributes:
        size: how many records are computed together, where the last digits of a result depend on that.
        places: of the records taken so far, in order.
    """

    shard: Shard
    size: int = 1
    places: list[int] = field(default_factory=list)
    _groups: int = 0
    _sum: Any = field(default_factory=hashlib.sha256)

    def of(self, records: Iterable[Record]) -> Iterator[Record]:
        """This job's records of a stream, which is read to its end."""
        for record in records:
            self._sum.update(dumps(record).encode() + b"\n")
            place = self._groups
            self._groups += 1
            if self.shard.takes(place // self.size):
                self.places.append(place)
                yield record

    def whole(self) -> Whole:
        """At the end of the stream."""
        return Whole(self._groups, len(self.places), self._sum.hexdigest())


class Runs:
    """Groups by rising place, written shortly: [first place, step, groups, records of each]."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self._place, self._size = -1, 0

    def add(self, place: int) -> None:
        """Counts a record of a group; the records of a group come one after the other."""
        if place == self._place:
            self._size += 1
            return
        self.end()
        self._place, self._size = place, 1

    def end(self) -> None:
        """The last group is complete."""
        if not self._size:
            return
        row = self.rows[-1] if self.rows else None
        if row is not None and row[3] == self._size and row[2] == 1 and self._place > row[0]:
            row[1], row[2] = self._place - row[0], 2
        elif row is not None and row[3] == self._size and self._place == row[0] + row[1] * row[2]:
            row[2] += 1
        else:
            self.rows.append([self._place, 1, 1, self._size])
        self._size = 0


class Ending:
    """Counts the records of a shard while they are written, and makes the record that ends them.

    Args:
        shard: which job's.
        command: whose output it is ("judge").
        settings: everything that the output depends on beside the input.
        whole: called at the end.
    """

    def __init__(
        self, shard: Shard, command: str, settings: Mapping[str, Any], whole: Callable[[], Whole]
    ) -> None:
        self._shard, self._command, self._settings, self._whole = shard, command, settings, whole
        self._runs, self._lines, self._count = Runs(), hashlib.sha256(), 0

    def add(self, place: int, record: Record) -> None:
        """Counts a record of the group at this place. Places rise."""
        self._lines.update(dumps(record).encode() + b"\n")
        self._runs.add(place)
        self._count += 1

    def record(self) -> Record:
        """The last record."""
        self._runs.end()
        known = self._whole()
        return {
            "kind": SHARD,
            "shard": str(self._shard),
            "command": self._command,
            "key": json_digest([self._command, __version__, self._settings, known.inputs])[:32],
            "groups": known.groups,
            "taken": known.taken,
            "records": self._count,
            "places": self._runs.rows,
            "digest": f"sha256:{self._lines.hexdigest()}",
        }

    def after(self, placed: Iterable[tuple[int, Record]]) -> Iterator[Record]:
        """The records of a stream of (place, record), and the last record."""
        for place, record in placed:
            self.add(place, record)
            yield record
        yield self.record()


def ranked(places: Sequence[int], records: Iterable[Record]) -> Iterator[tuple[int, Record]]:
    """Winners with the places of their prompts. The first winner of each prompt has the rank 0.

    Args:
        places: of the prompts, as far as their winners have come; those of negative ones are left out.
        records: winners, prompt by prompt.
    """
    group = -1
    for record in records:
        group += record["rank"] == 0
        if places[group] >= 0:
            yield places[group], record
