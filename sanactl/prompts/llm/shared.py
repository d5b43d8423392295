"""A chat model on several processes: the first one asks and keeps the answers, and all of them answer.

The first process cuts the messages of a call into the model's batches and gives each process one; see
`sanactl.model.sharing`. Answers are those of one process but for the last digits of a batch's arithmetic.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from sanactl.errors import InputError, SanactlError
from sanactl.model.sharing import at_once, compute_all, serve
from sanactl.prompts.llm.protocol import Ask, LanguageModel, Reply

__all__ = ["SharedModel", "divides", "serve_model"]


def divides(model: LanguageModel) -> bool:
    """Whether several processes share this model's messages; see `LanguageModel`."""
    return bool(getattr(model, "divides", False))


def serve_model(model: LanguageModel) -> None:
    """Answers what the first process hands out, until it is done. For each of the other processes."""
    serve(lambda asks: model.reply(asks, threading.Event()))


class SharedModel:
    """The first process's view of a model that all processes have loaded. It is used inside `leading`.

    As a context manager, it waits at its end for the call under way, because the end of the work is told to the other
    processes then. It does not wait on an interrupt, after which nothing is told.
    """

    concurrency = 1

    def __init__(self, model: LanguageModel) -> None:
        self._model, self.name, self.keeps = model, model.name, model.keeps
        self.batch_size = model.batch_size * at_once()
        self._turn, self._over = threading.Lock(), False

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's own: how many processes there are decides nothing."""
        return self._model.identity

    def check(self, tasks: Sequence[str]) -> None:
        self._model.check(tasks)

    def reply(self, asks: Sequence[Ask], stop: threading.Event) -> list[Reply]:
        size = self._model.batch_size
        parts = [asks[first : first + size] for first in range(0, len(asks), size)]
        with self._turn:
            if self._over:
                raise InputError(f"{self.name}: the run has ended")
            answers = compute_all(parts, lambda part: self._model.reply(part, stop))
        faults = [answer for answer in answers if isinstance(answer, SanactlError)]
        if faults:
            raise faults[0]
        return [reply for answer in answers if not isinstance(answer, SanactlError) for reply in answer]

    def __enter__(self) -> SharedModel:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None or not issubclass(kind, KeyboardInterrupt):
            with self._turn:
                self._over = True
