"""The tournament among the images of one prompt (SANA-1.5, section 2.5), from one scoring an image.

A verdict does not depend on the opponent, so it is computed once: N images cost N scorings, where the paper's rounds cost
about 2N.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Verdict", "beats", "keep_best", "knockout", "rank"]


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one image and one prompt; log-probabilities are natural logarithms.

    Attributes:
        mass: P(yes) + P(no) where the log-probabilities are bounds and their sum would be too large; else None.
        details: further fields of the image's record, as JSON; None for none.
    """

    verdict: str
    yes_logprob: float
    no_logprob: float
    mass: float | None = None
    details: Mapping[str, Any] | None = field(default=None, hash=False)

    @classmethod
    def of(cls, yes_logprob: float, no_logprob: float) -> Verdict:
        """The verdict is the likelier answer; a tie is a no.

        Raises:
            ValueError: a log-probability is NaN or above zero.
        """
        for value in (yes_logprob, no_logprob):
            if not value <= 1e-6:
                raise ValueError(f"{value} is not a log-probability")
        return cls("yes" if yes_logprob > no_logprob else "no", yes_logprob, no_logprob)

    @property
    def answer_mass(self) -> float:
        """P(yes) + P(no): how much of the judge's probability is on an answer to the question, in [0, 1]."""
        if self.mass is not None:
            return self.mass
        return min(1.0, math.exp(min(self.yes_logprob, 0.0)) + math.exp(min(self.no_logprob, 0.0)))

    @property
    def score(self) -> float:
        """The probability of the answer, with its sign: above 0 for yes, below for no, in [-1, 1].

        It orders images as the pairwise rule does: of two yeses the more certain wins, of two noes the less certain.
        """
        return math.exp(self.yes_logprob) if self.verdict == "yes" else -math.exp(self.no_logprob)


def beats(a: Verdict, b: Verdict) -> bool:
    """The pairwise rule: whether `a` wins over `b`; equals do not beat each other.

    Yes beats no. Both yes: the higher log-probability of yes. Both no: the paper's "higher confidence" is read as
    the reference does it, the lower log-probability of no.
    """
    if a.verdict != b.verdict:
        return a.verdict == "yes"
    if a.verdict == "yes":
        return a.yes_logprob > b.yes_logprob
    return a.no_logprob < b.no_logprob


def rank(verdicts: Sequence[Verdict]) -> list[int]:
    """Indices from the best to the worst; equals in the order given."""
    return sorted(range(len(verdicts)), key=lambda i: (_key(verdicts[i]), i))


def _key(v: Verdict) -> tuple[int, float]:
    # Log-probabilities and not `score`: near certainty, where exp() rounds to one, they still differ.
    return (0, -v.yes_logprob) if v.verdict == "yes" else (1, v.no_logprob)


def keep_best(verdicts: Sequence[Verdict], count: int | None) -> list[int]:
    """The `count` best, best first; all of them for None or where there are fewer."""
    order = rank(verdicts)
    return order if count is None else order[:count]


def knockout(verdicts: Sequence[Verdict], count: int = 1) -> list[int]:
    """The survivors of the reference's rounds: neighbours meet, the loser is out, until `count` are left.

    An image without an opponent goes on to the next round, and a round ends early once `count` are left, so that any
    number of images can be ranked (the reference drops images down to a power of two). The winner is `rank`'s first. For
    `count` > 1 the survivors are in the order given and need not be the `count` best: two of those may have met.

    Raises:
        ValueError: `count` is less than one.
    """
    if count < 1:
        raise ValueError(f"a knockout leaves at least one, not {count}")
    left = list(range(len(verdicts)))
    while len(left) > count:
        surplus = len(left) - count
        survivors: list[int] = []
        for i in range(0, len(left), 2):
            pair = left[i : i + 2]
            if len(pair) == 2 and surplus > 0:
                a, b = pair
                survivors.append(b if beats(verdicts[b], verdicts[a]) else a)
                surplus -= 1
            else:
                survivors += pair
        left = survivors
    return left
