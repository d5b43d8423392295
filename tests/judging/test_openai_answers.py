"""The answers of a server with OpenAI's protocol: log-probabilities become a verdict."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sanactl.errors import InputError
from sanactl.judging.backends.replies import read_reply


def completion(*listed: tuple[str, float], chosen: tuple[str, float] | None = None) -> Any:
    token, logprob = chosen or max(listed, key=lambda entry: entry[1])
    top = [{"token": t, "logprob": p} for t, p in listed]
    content = [{"token": token, "logprob": logprob, "top_logprobs": top}]
    return {"choices": [{"logprobs": {"content": content}}]}


def test_spellings_are_summed() -> None:
    p = {"Yes": 0.3, " yes": 0.2, "YES\n": 0.1, "no": 0.1, "▁No": 0.05, "yesterday": 0.1}
    v = read_reply(completion(*((t, math.log(x)) for t, x in p.items())), "it")
    assert (math.exp(v.yes_logprob), math.exp(v.no_logprob)) == pytest.approx((0.6, 0.15))
    assert v.answer_mass == pytest.approx(0.75)
    # A chosen token that is not among the listed counts; one that is counts once.
    v = read_reply(completion(("no", math.log(0.1)), ("a", -9.0), chosen=("yes", math.log(0.8))), "it")
    assert math.exp(v.yes_logprob) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("listed", "yes", "no"),
    [
        # The last that is listed, 0.02, is less than what is left.
        ({"yes": 0.7, "maybe": 0.05, "well": 0.02}, 0.7, 0.02),
        # What is left, 0.01, is less.
        ({"yes": 0.9, "maybe": 0.09}, 0.9, 0.01),
        ({"no": 0.99}, 0.01, 0.99),
        # Certain: never zero, and never a half.
        ({"no": 1.0}, 1e-9, 1.0),
        ({"yes": 1.0}, 1.0, 1e-9),
    ],
)
def test_a_missing_side_is_bounded(listed: dict[str, float], yes: float, no: float) -> None:
    v = read_reply(completion(*((t, math.log(p)) for t, p in listed.items())), "it")
    assert (math.exp(v.yes_logprob), math.exp(v.no_logprob)) == pytest.approx((yes, no), rel=1e-6)
    assert v.verdict == ("yes" if yes > no else "no")
    assert v.answer_mass == pytest.approx(sum(p for t, p in listed.items() if t in ("yes", "no")))


def test_nan_is_refused() -> None:
    with pytest.raises(InputError, match="as the log-probability of 'yes'"):
        read_reply(completion(("yes", float("nan")), ("no", -1.0), chosen=("no", -1.0)), "it")
    with pytest.raises(InputError, match="as the log-probability of 'no'"):
        read_reply(completion(("yes", -0.1), ("no", 0.7), chosen=("yes", -0.1)), "it")
