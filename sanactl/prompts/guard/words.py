"""`builtin:words`: a list of words, to try the pipe without a model. It protects nobody."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sanactl.errors import UsageError
from sanactl.prompts.guard.protocol import Finding

__all__ = ["WORDS", "WordsGuard"]

# Each word counts as a whole word, in any case.
WORDS: dict[str, tuple[str, ...]] = {
    "dangerous": ("bomb", "explosive", "grenade", "suicide"),
    "harassment": ("bully", "threaten"),
    "hate": ("racist", "nazi"),
    "sexual": ("naked", "nsfw", "nude", "porn"),
    "violence": ("blood", "corpse", "gore", "murder"),
}


class WordsGuard:
    """Probability 1 where a word of a policy's list is in the prompt, else 0.

    Raises:
        UsageError: another name than "words", or a policy or a dtype is asked for.
    """

    keeps = False

    def __init__(
        self, name: str, device: str | None = None, dtype: str | None = None, policy: str | None = None
    ) -> None:
        if name != "words":
            raise UsageError(
                f"no built-in guard {name!r}", hint="there is builtin:words, for trying the pipe"
            )
        if policy is not None or dtype is not None:
            raise UsageError(
                "builtin:words is a list of words: it has neither policies to choose nor a dtype"
            )
        self.name, self.policies = "builtin:words", tuple(WORDS)
        self.notice = (
            f"builtin:words is a list of {sum(map(len, WORDS.values()))} words for trying the pipe. It is no protection: "
            "take a model such as google/shieldgemma-2b"
        )
        self.identity: dict[str, Any] = {"name": self.name, "words": WORDS}
        self._lists = [re.compile(rf"\b(?:{'|'.join(words)})\b", re.IGNORECASE) for words in WORDS.values()]

    def check(self, prompts: Sequence[str]) -> list[Finding]:
        """See `sanactl.prompts.guard.protocol.Guard`."""
        return [Finding(tuple(float(bool(some.search(p))) for some in self._lists)) for p in prompts]
