"""The built-in world's tokenizer and text encoder: a word-level tokenizer and a two-layer Gemma 2, SANA's family.

SANA reads its prompts with a Gemma 2 that was trained on text before and stays frozen (SANA-1.0, section 2.3). So
does this one: `sanactl.world.train_text_encoder` teaches it to predict the next word and to read off what a
prompt demands, and nothing that trains on images changes it afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sanactl.shapes.prompts import Record, words
from sanactl.shapes.vocabulary import COLORS, NUMBERS, PLURALS, RELATIONS, SHAPES

if TYPE_CHECKING:
    from transformers import Gemma2Config, PreTrainedTokenizerFast

__all__ = ["FACTS", "MAX_TOKENS", "SPECIAL_TOKENS", "build_tokenizer", "facts_at_words", "text_config"]

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>")
# The longest prompt has 13 words ("a photo of a red square and an orange star"); <bos> and <eos> make 15.
MAX_TOKENS = 16
HIDDEN = 96

# What a reader of the prompt knows once it has read a word: about the noun just named, and of the whole.
FACTS: dict[str, tuple[str, ...]] = {
    "shape": ("none", *SHAPES),
    "color": ("none", *COLORS),
    "count": ("none", "one", *NUMBERS.values()),
    "slot": ("none", "first", "second"),
    "relation": ("none", *RELATIONS),
    "other_shape": ("none", *SHAPES),
    "other_color": ("none", *COLORS),
}


def build_tokenizer(
    more: tuple[str, ...] = (), special: tuple[str, ...] = SPECIAL_TOKENS
) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the world's closed vocabulary: lower case, split at white space and punctuation.

    Args:
        more: further words.
        special: `SPECIAL_TOKENS` in the order of their ids.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate((*special, *words(), *more))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>",
        special_tokens=[(t, vocabulary[t]) for t in ("<bos>", "<eos>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="right",
        model_max_length=300,
    )


def text_config(vocabulary_size: int) -> Gemma2Config:
    """A Gemma 2 of two layers, width 96 (about 0.2 M parameters)."""
    from transformers import Gemma2Config

    return Gemma2Config(
        vocab_size=vocabulary_size,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=32,
        query_pre_attn_scalar=32,
        max_position_embeddings=512,
        sliding_window=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def facts_at_words(record: Record) -> list[dict[str, int] | None]:
    """What is known after each word of a prompt: indices into `FACTS` at its nouns and, last, at its end.

    The entry of a word that is no noun is None. `relation` at the second noun is that of the first to the second;
    the last entry (for <eos>) repeats the last noun's, which by then knows everything.
    """
    singular = {plural: shape for shape, plural in PLURALS.items()}
    known: list[dict[str, int] | None] = []
    last: dict[str, Any] = dict.fromkeys(FACTS, "none")
    text: list[str] = record["prompt"].split()
    for i, word in enumerate(text):
        shape = word if word in SHAPES else singular.get(word)
        if shape is None:
            known.append(None)
            continue
        second = last["shape"] != "none"
        before = " ".join(text[:i])
        fact = {
            "shape": shape,
            "color": text[i - 1] if text[i - 1] in COLORS else "none",
            "count": text[i - 1] if text[i - 1] in NUMBERS.values() else "one",
            "slot": "second" if second else "first",
            "relation": next((r for r in RELATIONS if f" {r} " in f" {before} "), "none"),
            "other_shape": last["shape"],
            "other_color": last["color"],
        }
        last = fact
        known.append({name: FACTS[name].index(value) for name, value in fact.items()})
    final = next(f for f in reversed(known) if f is not None)
    return [*known, final]
