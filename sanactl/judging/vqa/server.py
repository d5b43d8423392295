"""Answers of a server that speaks OpenAI's protocol and gives log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sanactl.files.server_address import read_address
from sanactl.judging.backends.openai import ServerJudge
from sanactl.judging.backends.replies import LEAST, SPACES, listed_tokens
from sanactl.judging.dialogue import ANSWERS
from sanactl.judging.vqa.vlm import QUESTION, as_vqa
from sanactl.scoring.questions.protocol import Asked, spellings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ServerAnswers", "probabilities"]


class ServerAnswers:
    """Asks a server, one request for each question, several at once. It is reached when the first question comes.

    Args:
        address: `http(s)://host[:port]/v1#model`.
        max_pixels, key_env, concurrency, timeout, retries, extra: see `ServerJudge.open`.

    Raises:
        UsageError: the address is none.
    """

    digest = None
    batch_size = 16

    def __init__(
        self,
        address: str,
        *,
        max_pixels: int = 0,
        key_env: str = "OPENAI_API_KEY",
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 5,
        extra: str = "",
    ) -> None:
        base, model = read_address(address)
        self.label = f"{base}#{model}"
        self.identity: Mapping[str, Any] = {"model": self.label, "max_pixels": max_pixels, "extra": extra}
        self._open: dict[str, Any] = {
            "max_pixels": max_pixels,
            "key_env": key_env,
            "concurrency": concurrency,
            "timeout": timeout,
            "retries": retries,
            "extra": extra,
        }
        self._address = address
        self._judge: ServerJudge | None = None
        self._named: dict[str, Any] = {}

    def answer(self, image: NDArray[np.uint8], asked: Sequence[Asked]) -> list[tuple[float, ...]]:
        """See `Answerer.answer`."""
        with as_vqa():
            if self._judge is None:
                self._judge = ServerJudge.open(self._address, **self._open)
                self._judge.dialogue, self._named = QUESTION, self._judge.named
            bodies = [self._body(image, one) for one in asked]
            replies = self._judge.client.post_all("chat/completions", bodies)
            return [
                probabilities(listed_tokens(reply, self.label), one.answers)
                for reply, one in zip(replies, asked, strict=True)
            ]

    def _body(self, image: NDArray[np.uint8], one: Asked) -> dict[str, Any]:
        """The request. A server that can name the tokens of yes and no (`ServerJudge.named`) does so for these alone."""
        assert self._judge is not None
        yes_or_no = all(answer.lower() in ANSWERS for answer in one.answers)
        self._judge.named = self._named if yes_or_no else {}
        return self._judge.body(image, one.text)


def probabilities(listed: Mapping[str, float], answers: Sequence[str]) -> tuple[float, ...]:
    """The probability of each answer from the listed tokens and their log-probabilities.

    It is the sum over the listed tokens that spell the answer. Where none is listed it is bounded, as in `read_reply`.
    """
    rest = 1.0 - math.fsum(math.exp(p) for p in listed.values())
    bound = min(1.0, max(min(math.exp(min(listed.values())), rest), LEAST))
    found = []
    for answer in answers:
        words = spellings(answer)
        parts = [math.exp(p) for token, p in listed.items() if token.strip(SPACES).lower() in words]
        found.append(min(1.0, math.fsum(parts)) if parts else bound)
    return tuple(found)
