"""What a run has asked for and may still ask for: requests, tokens, dollars."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from sanactl.errors import UsageError
from sanactl.prompts.llm.protocol import Ask, Reply

__all__ = ["Limits", "Spending", "read_price"]


@dataclass(frozen=True)
class Limits:
    """Bounds of one run.

    Attributes:
        max_requests: answers asked for; repetitions after a 429 or a broken connection are not counted.
        max_tokens: tokens of messages and answers together. None is asked for when they are reached; what is under way
            comes in.
        price: dollars for a million tokens of messages and of answers.
    """

    max_requests: int | None = None
    max_tokens: int | None = None
    price: tuple[float, float] | None = None


def read_price(text: str | None) -> tuple[float, float] | None:
    """The two numbers of `--price IN,OUT`.

    Raises:
        UsageError: they are none.
    """
    if text is None:
        return None
    if re.fullmatch(r"\s*\d+(\.\d*)?\s*,\s*\d+(\.\d*)?\s*", text):
        before, after = (float(part) for part in text.split(","))
        if math.isfinite(before) and math.isfinite(after):
            return before, after
    raise UsageError(
        f"--price {text!r} is not IN,OUT", hint="dollars for a million tokens, such as 0.15,0.60"
    )


class Spending:
    """Counts what is asked for. Several threads may use it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = self.tokens_in = self.tokens_out = self.reused = 0
        self._estimated = False
        self._lock = threading.Lock()

    def take(self, count: int) -> int:
        """How many of `count` requests may be made; they are counted."""
        with self._lock:
            if (
                self.limits.max_tokens is not None
                and self.tokens_in + self.tokens_out >= self.limits.max_tokens
            ):
                return 0
            if self.limits.max_requests is not None:
                count = min(count, self.limits.max_requests - self.requests)
            self.requests += count
            return count

    def give_back(self, count: int) -> None:
        """So many requests were not made: another run has made them meanwhile."""
        with self._lock:
            self.requests -= count

    def add(self, asks: Sequence[Ask], replies: Sequence[Reply]) -> None:
        """Counts the tokens of replies; four bytes are a token where the model does not say."""
        with self._lock:
            for ask, reply in zip(asks, replies, strict=True):
                if reply.refusal is not None and reply.tokens_in is None:
                    continue
                self._estimated |= reply.tokens_in is None or reply.tokens_out is None
                self.tokens_in += _tokens(ask.message) if reply.tokens_in is None else reply.tokens_in
                self.tokens_out += _tokens(reply.text) if reply.tokens_out is None else reply.tokens_out

    def reuse(self) -> None:
        """Counts an answer of an earlier run."""
        with self._lock:
            self.reused += 1

    def fields(self) -> dict[str, str]:
        """For a progress bar."""
        if not self.requests:
            return {}
        shown = {"requests": f"{self.requests:,}", "tokens": f"{self.tokens_in + self.tokens_out:,}"}
        return shown | ({"cost": self._cost()} if self.limits.price else {})

    def said(self) -> str:
        """In words, for the end of a run."""
        parts = []
        if self.tokens_in + self.tokens_out:
            about = "about " if self._estimated else ""
            cost = f", {self._cost()}" if self.limits.price else ""
            parts.append(
                f"{self.requests:,} request{'s' * (self.requests != 1)} with {about}{self.tokens_in:,} tokens, answers of "
                f"{about}{self.tokens_out:,}{cost}"
            )
        if self.reused:
            parts.append(f"{self.reused:,} answer{'s' * (self.reused != 1)} of earlier runs")
        return "; ".join(parts)

    def reached(self) -> str:
        """Which limit ended the run, in words."""
        most = self.limits.max_requests
        if most is not None and self.requests >= most:
            return f"--max-requests {most:,}"
        return f"--max-tokens {self.limits.max_tokens or 0:,}"

    def _cost(self) -> str:
        assert self.limits.price is not None
        before, after = self.limits.price
        dollars = (self.tokens_in * before + self.tokens_out * after) / 1e6
        return f"${dollars:.2f}" if dollars >= 1 else f"${dollars:.4f}"


def _tokens(text: str) -> int:
    return math.ceil(len(text.encode("utf-8", "replace")) / 4)
