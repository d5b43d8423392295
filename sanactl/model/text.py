"""Encoding prompts as text embeddings, by the rules of diffusers' `SanaPipeline`.

SANA's "complex human instruction" may be put before the prompt. Of the (instruction + max_sequence_length - 2) tokens, the
first and the last `max_sequence_length - 1` are kept. The embeddings are the last hidden state.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sanactl.errors import InputError
from sanactl.model.offload import compute_device

__all__ = [
    "cut_note",
    "cut_prompts",
    "encode_prompts",
    "human_instruction",
    "instruction_tokens",
    "kept_tokens",
]

# Prompts whose tokens are counted at once.
_CHUNK = 1024
# A tokenizer stores its padding and truncation as state, so only one thread may use it at a time.
_tokenizing = threading.Lock()


def human_instruction() -> list[str]:
    """SANA's complex human instruction, as the lines that `SanaPipeline.__call__` has as its default."""
    from diffusers import SanaPipeline

    return list(inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default)


@torch.no_grad()
def encode_prompts(
    tokenizer: Any,
    text_encoder: torch.nn.Module,
    prompts: Sequence[str],
    *,
    max_sequence_length: int = 300,
    instruction: Sequence[str] | None = None,
) -> tuple[Tensor, Tensor]:
    """Encode prompts.

    Args:
        tokenizer, text_encoder: the checkpoint's components.
        prompts: B prompts; "" is the negative prompt, and never gets the instruction.
        max_sequence_length: T, tokens kept (300 for published SANA checkpoints).
        instruction: lines put before every prompt, or None.

    Returns:
        embeddings [B, T, D] in the encoder's dtype and the mask [B, T], 1 for a token and 0 for padding. Padding is
        masked in every attention, so an embedding does not depend on its neighbours in the batch.

    Raises:
        InputError: the tokenizer and the text encoder do not belong together.
    """
    with _tokenizing:
        texts, length = _texts(tokenizer, prompts, max_sequence_length, instruction)
        tokenizer.padding_side = "right"
        tokens = tokenizer(
            texts,
            padding="max_length",
            max_length=length,
            truncation=True,
            add_special_tokens=True,
            return_tensors="pt",
        )
    rows, most = _embeddings(text_encoder), int(tokens["input_ids"].max())
    if rows is not None and most >= rows:
        raise InputError(
            f"the tokenizer gives the token {most:,}, and the text encoder knows {rows:,}",
            hint="they are not of one model",
        )
    device = compute_device(text_encoder)
    mask = tokens["attention_mask"].to(device)
    hidden = text_encoder(tokens["input_ids"].to(device), attention_mask=mask)[0]
    select = [0, *range(-max_sequence_length + 1, 0)]
    return hidden[:, select], mask[:, select]


def _embeddings(text_encoder: Any) -> int | None:
    """The size of a text encoder's vocabulary, or None if unknown."""
    find = getattr(text_encoder, "get_input_embeddings", None)
    return getattr(find() if find else None, "num_embeddings", None)


def _texts(
    tokenizer: Any, prompts: Sequence[str], max_sequence_length: int, instruction: Sequence[str] | None
) -> tuple[list[str], int]:
    """The tokenizer's input for each prompt, and the number of its tokens to keep."""
    texts = [p.lower().strip() for p in prompts]
    if not instruction:
        return texts, max_sequence_length
    prefix = "\n".join(instruction)
    return [prefix + t for t in texts], len(tokenizer.encode(prefix)) + max_sequence_length - 2


def instruction_tokens(tokenizer: Any, instruction: Sequence[str] | None) -> int:
    """The number of tokens that `encode_prompts` gives the text encoder beside `max_sequence_length`."""
    with _tokenizing:
        return _texts(tokenizer, (), 0, instruction)[1]


def kept_tokens(
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_sequence_length: int = 300,
    instruction: Sequence[str] | None = None,
) -> list[int]:
    """The number of tokens, without padding, that `encode_prompts` keeps of each prompt. Arguments as there."""
    with _tokenizing:
        texts, length = _texts(tokenizer, prompts, max_sequence_length, instruction)
        ids = tokenizer(texts, add_special_tokens=True, truncation=False, padding=False)["input_ids"]
    # The first token and the last `max_sequence_length - 1` of so many are kept; padding is on the right.
    dropped = length - max_sequence_length
    counts = [min(len(tokens), length) for tokens in ids]
    return [min(count, 1) + max(0, count - dropped - 1) for count in counts]


def cut_prompts(
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_sequence_length: int = 300,
    instruction: Sequence[str] | None = None,
) -> list[int]:
    """The positions of prompts with more tokens than `encode_prompts` keeps.

    Arguments as in `encode_prompts`. A hundred thousand short prompts take a fraction of a second.
    """
    # A token of plain ASCII is at least one character; a few more tokens are added (start, the end of the prefix).
    short = max_sequence_length - 8
    places = [i for i, p in enumerate(prompts) if len(p) > short or not p.isascii()]
    found = []
    for start in range(0, len(places), _CHUNK):
        chunk = places[start : start + _CHUNK]
        texts, length = _texts(tokenizer, [prompts[i] for i in chunk], max_sequence_length, instruction)
        ids = tokenizer(texts, add_special_tokens=True, truncation=False, padding=False)["input_ids"]
        found += [place for place, tokens in zip(chunk, ids, strict=True) if len(tokens) > length]
    return found


def cut_note(
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_sequence_length: int = 300,
    instruction: Sequence[str] | None = None,
    what: str = "prompt",
) -> str | None:
    """A line for the user about prompts that are cut, with their number and the first of them; None if there are none.

    Arguments as in `encode_prompts`; `what` is the line's word for a prompt ("caption").
    """
    cut = cut_prompts(tokenizer, prompts, max_sequence_length=max_sequence_length, instruction=instruction)
    if not cut:
        return None
    text = " ".join(prompts[cut[0]].split())
    return (
        f"warning: {len(cut):,} of {len(prompts):,} {what}{'s have' if len(prompts) > 1 else ' has'} more than the"
        f" {max_sequence_length} tokens that the model is given, so the end has no effect; the first is {what}"
        f" {cut[0] + 1:,}: {text[:60] + ('...' if len(text) > 60 else '')!r}"
    )
