"""Log-probabilities in the replies of a server that speaks OpenAI's protocol, and the verdict that they make."""

from __future__ import annotations

import math
from typing import Any

from sanactl.errors import InputError
from sanactl.files.json_values import brief
from sanactl.judging.dialogue import ANSWERS
from sanactl.judging.tournament import Verdict

__all__ = ["LEAST", "SPACES", "listed_tokens", "read_reply"]

# What a tokenizer writes for the space before a word, where a server does not decode tokens.
SPACES = " \t\r\n\u2581\u0120"
# No bound of a probability is below this: float32 rounds 1 - p no finer.
LEAST = 1e-9


def read_reply(reply: Any, name: str, answers: tuple[str, str] = ANSWERS) -> Verdict:
    """The verdict in a chat completion's log-probabilities of its first token.

    P(yes) is the sum over the listed tokens that are "yes" without white space and in lower case; P(no) likewise. Where
    none is listed, the probability is bounded: no token that is left out is likelier than the last that is listed, nor
    than what all listed ones leave. `Verdict.mass` counts listed tokens alone.

    Args:
        reply: the JSON object.
        name: names the server in errors.
        answers: the words, in lower case, that count as yes and as no.

    Raises:
        InputError: there are no log-probabilities, or they are no numbers from -inf to 0.
    """
    listed = listed_tokens(reply, name)
    found: dict[str, list[float]] = {answer: [] for answer in answers}
    for token, logprob in listed.items():
        spelled = token.strip(SPACES).lower()
        if spelled in found:
            found[spelled].append(math.exp(logprob))
    rest = 1.0 - math.fsum(math.exp(p) for p in listed.values())
    bound = min(math.exp(min(listed.values())), rest)
    sums = {answer: math.fsum(parts) for answer, parts in found.items()}
    yes, no = (math.log(min(1.0, max(sums[a] if found[a] else bound, LEAST))) for a in answers)
    bounded = not all(found.values())
    mass = min(1.0, math.fsum(sums.values())) if bounded else None
    verdict = Verdict.of(yes, no)
    return Verdict(verdict.verdict, yes, no, mass)


def listed_tokens(reply: Any, name: str) -> dict[str, float]:
    """The listed tokens and their log-probabilities. A token that is listed twice counts once."""
    try:
        choice = reply["choices"][0]
    except (TypeError, KeyError, IndexError):
        raise InputError(f"{name}: its reply is no chat completion: {brief(reply)}") from None
    try:
        first = choice["logprobs"]["content"][0]
        entries = first["top_logprobs"] or []
        # The chosen token is one of the listed, and some servers list others alone.
        listed = {entry["token"]: entry["logprob"] for entry in [first, *entries]}
    except (TypeError, KeyError, IndexError):
        listed, entries = {}, []
    if not entries:
        raise InputError(
            f"{name}: its reply has no log-probabilities, so it cannot be a judge",
            hint="vLLM, SGLang and llama.cpp's server give them; `transformers serve` and reasoning models do not",
        )
    for token, logprob in listed.items():
        if not (isinstance(token, str) and isinstance(logprob, int | float) and logprob <= 1e-3):
            raise InputError(
                f"{name}: gives {brief(logprob)} as the log-probability of {brief(token)}",
                hint="the server's model may compute NaN in its dtype",
            )
    # Some servers write -9999 or -inf for a token that a filter has removed.
    kept = {token: min(0.0, max(float(p), -700.0)) for token, p in listed.items()}
    return kept
