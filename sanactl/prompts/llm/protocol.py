"""The interface of language models."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Ask", "LanguageModel", "Reply"]


@dataclass(frozen=True)
class Ask:
    """What a model is asked.

    Attributes:
        message: the text of the user's turn.
        seed: of random numbers, where the model draws any; another one is another question.
        task: the language form ("zh") or the style ("detail").
        prompt: the prompt that the message is about, for a model that reads no messages.
    """

    message: str
    seed: int
    task: str
    prompt: str


@dataclass(frozen=True)
class Reply:
    """What a model answers.

    Attributes:
        text: its answer, unchanged.
        finish: why it ended: "stop" where the model was done, "length" at the limit of tokens, "content_filter" where the
            server has held something back, or another word of a server's.
        tokens_in, tokens_out: of the message and of the answer; None where they are not known.
        refusal: why there is no answer at all, in a server's words; None for an answer. Such a reply is not kept.
    """

    text: str
    finish: str = "stop"
    tokens_in: int | None = None
    tokens_out: int | None = None
    refusal: str | None = None


class LanguageModel(Protocol):
    """Answers messages, each as if it were the only one.

    Attributes:
        name: what records call it.
        batch_size: messages that it is best asked at once.
        concurrency: the most calls of `reply` at a time.
        keeps: whether its answers cost enough to be kept for later runs.

    A model can do without `divides`: whether each of several processes loads it and answers a share of the messages. Without
    it the first process alone asks.
    """

    name: str
    batch_size: int
    concurrency: int
    keeps: bool

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything except message and seed that its answers depend on, as JSON."""

    def check(self, tasks: Sequence[str]) -> None:
        """Looks whether it can do these tasks.

        Raises:
            UsageError: it cannot.
        """

    def reply(self, asks: Sequence[Ask], stop: threading.Event) -> list[Reply]:
        """One reply for each.

        Args:
            asks: at most `batch_size`.
            stop: set when no further attempts are wanted.

        Raises:
            InputError: the model cannot be reached, or fails for reasons that are not this message's.
        """
