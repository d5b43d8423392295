"""The answers of language models in a folder's memory, so that none is paid for twice.

They are in `.sanactl/answers/` (`sanactl.records.kept_rows`): a file for each model with its options, a line for each
answer, written as soon as the answer is there and before it is looked at. Answers that fail the checks are kept, too. The
key is the whole message (template, prompt and what was said about an earlier answer) and the seed.

Unlike verdicts, answers are never removed to save space.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.files.claims import Claims
from sanactl.files.content import json_digest
from sanactl.prompts.llm.protocol import Ask, LanguageModel, Reply
from sanactl.records.kept_rows import KeptRows

__all__ = ["FOLDER", "KeptAnswers"]

FOLDER = Path(".sanactl") / "answers"


class KeptAnswers:
    """The answers of one model: those of earlier runs, and this run's. Several threads may use it.

    Args:
        folder: answers are in its `.sanactl/answers/`; None keeps them for this object's life.
        model: an opened language model.
        ask_again: do not use answers of earlier runs.

    Raises:
        InputError: answers that cost something cannot be kept there.
    """

    def __init__(self, folder: Path | None, model: LanguageModel, *, ask_again: bool = False) -> None:
        self._place = folder / FOLDER if folder is not None and model.keeps else None
        self._lock = threading.Lock()
        if self._place is not None:
            try:
                self._place.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise self._fault(error) from None
        source = json_digest({"llm": model.identity})[:16]
        self._rows = KeptRows(self._place, source, _row, ask_again)
        self._claims = None if self._place is None or ask_again else Claims(self._place / f"{source}.lock")

    def get(self, ask: Ask) -> tuple[Reply, bool] | None:
        """An answer that is known, and whether it is an earlier run's."""
        key = _key(ask)
        with self._lock:
            row = self._rows.get(key)
            return None if row is None else (Reply(*row), self._rows.is_earlier(key))

    @contextlib.contextmanager
    def claimed(self, asks: Sequence[Ask], stop: threading.Event) -> Iterator[None]:
        """In the body, no other run in this folder asks for these; what others have asked for meanwhile is known."""
        if self._claims is None:
            yield
            return
        with self._claims.held([_key(ask) for ask in asks], stop):
            with self._lock:
                self._rows.refresh()
            yield

    def put(self, answers: Sequence[tuple[Ask, Reply]]) -> None:
        """Keeps answers; refusals that are no answers are not kept.

        Raises:
            InputError: they cannot be written. What is asked from now on would be paid for again.
        """
        rows = {
            _key(ask): (reply.text, reply.finish, reply.tokens_in, reply.tokens_out)
            for ask, reply in answers
            if reply.refusal is None
        }
        if not rows:
            return
        with self._lock:
            try:
                self._rows.put(rows)
            except OSError as error:
                raise self._fault(error) from None

    def _fault(self, error: OSError) -> InputError:
        reason = (error.strerror or str(error)).lower()
        return InputError(
            f"{self._place}: answers cannot be kept ({reason})",
            hint="no more is asked for, since it would be paid for again; make room, or work in another folder",
        )


def _key(ask: Ask) -> bytes:
    return bytes.fromhex(json_digest([ask.message, ask.seed])[:32])


def _row(row: Sequence[Any]) -> tuple[Any, ...]:
    """Raises ValueError unless it is an answer."""
    text, finish, tokens_in, tokens_out = [*row, None, None][:4]
    counts = all(n is None or type(n) is int for n in (tokens_in, tokens_out))
    if not (isinstance(text, str) and isinstance(finish, str) and counts):
        raise ValueError("no answer")
    return text, finish, tokens_in, tokens_out
