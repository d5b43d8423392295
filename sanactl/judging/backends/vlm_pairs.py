"""A vision-language model's choice between two images of one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sanactl.errors import InputError
from sanactl.judging.backends.answers import answer_tokens
from sanactl.judging.dialogue import CHOICES, pair_conversation
from sanactl.judging.protocol import Pair
from sanactl.judging.tournament import Verdict
from sanactl.model.memory import Fitting, out_of_memory

__all__ = ["choose"]


def choose(judge: Any, pairs: Sequence[Pair], prompts: Sequence[str]) -> list[Verdict]:
    """Shows both images in one dialogue; a yes is the first image.

    Args:
        judge: a `VlmJudge`; its processor must take two images in a dialogue.
        pairs: the first and the second image of each, uint8 [height, width, 3], RGB.
        prompts: one for each pair.

    Raises:
        InputError: the model takes one image alone, gives NaN, or has no memory for a single pair.
    """
    words, first, second = _words(judge)
    asked = [pair_conversation(p.replace(judge.image_token, " "), words) for p in prompts]
    return Fitting().run(
        len(pairs),
        lambda part: judge.answers(_inputs(judge, pairs[part], asked[part]), first, second),
        lambda reason: InputError(
            f"judge {judge.name} has not enough memory for two images",
            hint="try --dtype bf16, or smaller images",
        ),
    )


def _words(judge: Any) -> tuple[tuple[str, str], list[int], list[int]]:
    """The words for the first and the second image, and their tokens."""
    for words in CHOICES:
        try:
            one, other = (answer_tokens(judge.processor.tokenizer, word, judge.name) for word in words)
        except InputError:
            continue
        if not set(one) & set(other):
            return words, one, other
    raise InputError(f"judge {judge.name} has no tokens that name the first and the second image")


def _inputs(judge: Any, pairs: Sequence[Pair], asked: list[Any]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = judge.processed(pairs, asked)
    except (ValueError, IndexError, TypeError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        raise InputError(
            f"judge {judge.name} takes no two images in one dialogue: {str(error).splitlines()[0][:200]}",
            hint="take another judge for --pairs",
        ) from None
    return found
