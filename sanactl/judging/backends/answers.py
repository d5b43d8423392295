"""The tokens that an answer of one word can begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sanactl.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["answer_tokens"]


def answer_tokens(tokenizer: PreTrainedTokenizerBase, answer: str, name: str) -> list[int]:
    """The ids that an answer can begin with: its spellings that are one token, with and without a space.

    Raises:
        InputError: no spelling is a token of its own.
    """
    ids = set()
    for word in (answer, answer.capitalize(), answer.upper()):
        for text in (word, f" {word}"):
            encoded = tokenizer.encode(text, add_special_tokens=False)
            if len(encoded) == 1 and encoded[0] != tokenizer.unk_token_id:
                ids.add(int(encoded[0]))
    if not ids:
        raise InputError(f"{name}: its tokenizer has no token for {answer!r}", hint="take another model")
    return sorted(ids)
