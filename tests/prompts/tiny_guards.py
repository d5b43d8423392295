"""Language models with random weights, tiny and of the real classes, saved as the Hub has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sanactl.prompts.guard.policies import POLICIES

LONGEST = 512  # tokens
# What the tests of guards ask about.
PROMPTS = ["a red circle", "two blue stars", "a dog and a cat in a very large room", "x", "a green square"]


def tokenizer(chat: str | None = None) -> Any:
    """Byte-level, trained on the policies' texts, with Gemma's control tokens and a <bos> before every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    texts = [found.text("a photo of", policy) for found in POLICIES.values() for policy in found.policies]
    made.train_from_iterator(texts, trainer)
    made.add_tokens(["Yes", "No"])
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        additional_special_tokens=special[3:],
        chat_template=chat,
        clean_up_tokenization_spaces=False,
    )


def save_gemma2(folder: Path, chat: str | None = None, seed: int = 0) -> Path:
    """A Gemma 2, the class of ShieldGemma, whose answers differ from prompt to prompt."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    tokens = tokenizer(chat)
    torch.manual_seed(seed)
    config = Gemma2Config(
        vocab_size=len(tokens), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=LONGEST, sliding_window=64, initializer_range=0.4,
        pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder
