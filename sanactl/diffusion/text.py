"""Prompts to text embeddings, by the rules of diffusers' `SanaPipeline`.

The prompt may be preceded by SANA's "complex human instruction". Kept are the first token and the last
`max_sequence_length - 1` of (instruction + max_sequence_length - 2) tokens; the embeddings are the last hidden state.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["encode_prompts", "human_instruction"]


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
    """Embeds prompts.

    Args:
        tokenizer, text_encoder: the checkpoint's companions.
        prompts: B prompts; "" is the negative prompt, and never gets the instruction.
        max_sequence_length: T, tokens kept (300 for published SANA checkpoints).
        instruction: lines put before every prompt, or None.

    Returns:
        embeddings [B, T, D] in the encoder's dtype and the mask [B, T], 1 for a token and 0 for padding. Padding is
        masked in every attention, so an embedding does not depend on its neighbours in the batch.
    """
    texts = [p.lower().strip() for p in prompts]
    length = max_sequence_length
    if instruction:
        prefix = "\n".join(instruction)
        texts = [prefix + t for t in texts]
        length = len(tokenizer.encode(prefix)) + max_sequence_length - 2
    tokenizer.padding_side = "right"
    tokens = tokenizer(
        texts,
        padding="max_length",
        max_length=length,
        truncation=True,
        add_special_tokens=True,
        return_tensors="pt",
    )
    device = next(text_encoder.parameters()).device
    mask = tokens["attention_mask"].to(device)
    hidden = text_encoder(tokens["input_ids"].to(device), attention_mask=mask)[0]
    select = [0, *range(-max_sequence_length + 1, 0)]
    return hidden[:, select], mask[:, select]
