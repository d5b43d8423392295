"""`scale --shard`: the prompts that one of several jobs searches for."""

from __future__ import annotations

from collections.abc import Sequence

from sanactl.records.records import Record
from sanactl.records.shards import Shard

__all__ = ["tasks_of"]


def tasks_of(prompts: Sequence[Record], shard: Shard | None) -> list[int]:
    """The numbers of the prompts of every N-th task, tasks numbered as they first come; of all prompts without a shard.

    What a search has learned of a task decides when its prompts stop, so a task is not divided. Prompts without a `tag` are
    one task.
    """
    tags = [str(prompt.get("tag") or "") for prompt in prompts]
    numbers = {tag: number for number, tag in enumerate(dict.fromkeys(tags))}
    return [place for place, tag in enumerate(tags) if shard is None or shard.takes(numbers[tag])]
