"""`judge` on several processes: the first reads, writes and remembers, all of them judge; see `sanactl.model.sharing`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sanactl.errors import SanactlError
from sanactl.judging.cache import Question, VerdictCache
from sanactl.judging.protocol import Judge
from sanactl.judging.tournament import Verdict
from sanactl.model.sharing import at_once, compute_all, serve

__all__ = ["SharedCache", "serve_judge"]


class SharedCache(VerdictCache):
    """The first process's verdicts. The other processes are in `serve_judge` while it asks."""

    @property
    def at_once(self) -> int:
        return at_once()

    def ask_all(self, batches: Sequence[Sequence[Question]]) -> list[list[Verdict]]:
        # The other processes read the images' bytes themselves.
        parts = [([replace(q, data=None) for q in batch], self.missing(batch)) for batch in batches]
        fault: SanactlError | None = None
        # One by one: what the others have found is kept where one of them fails.
        found = compute_all(parts, lambda part: self.answers(batches[0], part[1]))
        for batch, (_, some), result in zip(batches, parts, found, strict=True):
            if isinstance(result, SanactlError):
                fault = fault or result
            else:
                self.keep(batch, some, result)
        if fault is not None:
            raise fault
        return [self.verdicts_of(batch) for batch in batches]


def serve_judge(judge: Judge) -> None:
    """Judges what the first process hands out, until it is done. For each of the other processes."""
    cache = VerdictCache(None, judge)

    def answers(part: Any) -> list[list[Verdict]]:
        return cache.answers(*part)

    serve(answers)
