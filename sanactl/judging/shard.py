"""`judge --shard`: the images of a stream that one of several jobs judges, and where its winners belong.

The last digits of a verdict depend on the images that are judged together. So jobs divide the batches of a run for all
images, and a job judges its batches whole. A unit of work ends with a batch after which no prompt's images are still to
come, or after `MOST` batches. Job I takes unit I and every N-th after it: the prompts whose first image is in them, and the
batches that these prompts have images in. Where units end between prompts, no batch is judged twice.

An image that comes twice is judged once. Here it is known by its path, and not by its content, which would have to be read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sanactl.judging.select import group_key, group_size
from sanactl.records.records import Record, dumps
from sanactl.records.shards import Shard, Whole

__all__ = ["TakenImages"]

MOST = 8  # batches of a unit; a prompt that goes on behind a unit costs one batch more


@dataclass
class _Open:
    """A prompt whose images are coming: the number of its first image, how many it has and how many have come."""

    first: int
    size: int | None
    mine: bool
    count: int = 0


class TakenImages:
    """The images of one of several jobs.

    A prompt's place is that of its last image in the whole stream, since `judge_stream` passes its winners on then. Prompts
    that do not say how many images they have follow at the end, in the order of their first images.

    Attributes:
        places: of the prompts that `judge_stream` passes on, in its order; -1 for those of other jobs, some of whose images
            are in this job's batches.
    """

    def __init__(self, shard: Shard, batch_size: int) -> None:
        self._shard, self._size, self._sum = shard, batch_size, hashlib.sha256()
        self._groups = self._taken = 0
        self.places: list[int] = []
        self._owned: dict[str, bool] = {}  # by the prompt: whether it is this job's
        self._coming: dict[str, _Open] = {}  # in the whole stream
        self._judged: dict[str, _Open] = {}  # in what `judge_stream` gets
        self._number = 0

    def of(self, records: Iterable[Record]) -> Iterator[Record]:
        """This job's images of a stream, which is read to its end.

        Raises:
            InputError: a record's `samples` is no number of images.
        """
        seen: set[tuple[str, str]] = set()
        batch: list[tuple[Record, bool]] = []
        unit = batches = new = 0
        for record in records:
            self._sum.update(dumps(record).encode() + b"\n")
            batch.append((record, self._come(record, self._shard.takes(unit))))
            image = (str(record["path"]), str(record["prompt"]))
            new += image not in seen
            seen.add(image)
            if new == self._size:
                yield from self._judge(batch)
                batch, new, batches = [], 0, batches + 1
                if batches == MOST or not self._coming:
                    unit, batches = unit + 1, 0
        yield from self._judge(batch)
        self.places += [self._number + g.first if g.mine else -1 for g in self._judged.values()]

    def _come(self, record: Record, mine: bool) -> bool:
        """Takes in an image of the whole stream; whether its prompt is this job's. `mine` decides of a new prompt."""
        key = group_key(record)
        group = self._coming.get(key)
        if group is None:
            mine = self._owned.setdefault(key, mine)
            group = self._coming[key] = _Open(0, group_size(record), mine)
            self._groups += 1
            self._taken += mine
        group.count += 1
        if group.size is not None and group.count >= group.size:
            del self._coming[key]
        return group.mine

    def _judge(self, batch: list[tuple[Record, bool]]) -> Iterator[Record]:
        """The images of a batch, if it is this job's, as `judge_stream` will sort them by their prompts."""
        if not any(mine for _, mine in batch):
            self._number += len(batch)
            return
        for record, mine in batch:
            self._number += 1
            key = group_key(record)
            group = self._judged.get(key)
            if group is None:
                group = self._judged[key] = _Open(self._number, group_size(record), mine)
            group.count += 1
            if group.size is not None and group.count >= group.size:
                del self._judged[key]
                self.places.append(self._number if group.mine else -1)
            yield record

    def whole(self) -> Whole:
        """At the end of the stream."""
        return Whole(self._groups, self._taken, self._sum.hexdigest())
