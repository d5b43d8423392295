"""Trains the built-in world's text encoder on prompts alone: next word, and what the prompt demands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sanactl.files.paths import utf8_name
from sanactl.files.progress import SILENT, Progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

__all__ = ["train_text_encoder"]

IGNORE = -100


def _batch(
    tokenizer: PreTrainedTokenizerFast, size: int, step: int, seed: int, split: str
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Token ids [B, T], attention mask [B, T] and, for each fact, its class at every token [B, T] or `IGNORE`."""
    import numpy as np
    import torch

    from sanactl.shapes.prompts import sample_prompt
    from sanactl.world.text_model import FACTS, MAX_TOKENS, facts_at_words

    rng = np.random.default_rng([seed, step])
    records = [sample_prompt(rng, split=split) for _ in range(size)]
    tokens = tokenizer(
        [r["prompt"] for r in records],
        padding="max_length",
        max_length=MAX_TOKENS,
        truncation=True,
        return_tensors="pt",
    )
    targets = {name: torch.full((size, MAX_TOKENS), IGNORE) for name in FACTS}
    for row, record in enumerate(records):
        # Token 0 is <bos>, so the word at i is token i + 1; the last entry is <eos>.
        for i, known in enumerate(facts_at_words(record)):
            for name, value in (known or {}).items():
                targets[name][row, i + 1] = value
    return tokens["input_ids"], tokens["attention_mask"], targets


def train_text_encoder(
    target: Path,
    *,
    steps: int = 1200,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, float]:
    """Trains a small Gemma 2 and its tokenizer; writes `target/text_encoder` and `target/tokenizer`.

    The fact heads (one linear layer each) are thrown away afterwards: they only see to it that the hidden states
    say which colour, count and place belongs to which noun, which the image model then reads by cross-attention.

    Returns:
        The share of facts read correctly at the end of evaluation prompts, which training never saw.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F
    from transformers import Gemma2Model

    from sanactl.model.saving import rewrite_weights
    from sanactl.world.text_model import FACTS, build_tokenizer, text_config

    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = Gemma2Model(text_config(len(tokenizer))).train()
    width = model.config.hidden_size
    heads = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in FACTS.items()})
    next_word = nn.Linear(width, len(tokenizer))
    parameters = [*model.parameters(), *heads.parameters(), *next_word.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    progress.start(steps, "text encoder")
    for step in range(steps):
        ids, mask, targets = _batch(tokenizer, batch_size, step, seed, "train")
        hidden = model(ids, attention_mask=mask).last_hidden_state
        labels = ids[:, 1:].masked_fill(mask[:, 1:] == 0, IGNORE)
        loss = F.cross_entropy(next_word(hidden[:, :-1]).flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
        for name, head in heads.items():
            loss = loss + F.cross_entropy(
                head(hidden).flatten(0, 1), targets[name].flatten(), ignore_index=IGNORE
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        progress.advance(1, loss=f"{loss.item():.4f}")
    progress.close()

    model.eval()
    right = total = 0
    with torch.no_grad():
        ids, mask, targets = _batch(tokenizer, 512, 0, seed + 1, "eval")
        hidden = model(ids, attention_mask=mask).last_hidden_state
        end = mask.sum(1) - 1
        rows = torch.arange(len(ids))
        for name, head in heads.items():
            right += (head(hidden[rows, end]).argmax(-1) == targets[name][rows, end]).sum().item()
            total += len(ids)
    with utf8_name(target) as place:
        tokenizer.save_pretrained(f"{place}/tokenizer")
    model.save_pretrained(target / "text_encoder")
    rewrite_weights(target / "text_encoder")
    return {"facts_read": right / total}
