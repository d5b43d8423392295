"""The built-in judge's architecture: a small LLaVA (vision tower, projector, language model) and its processor.

SaVILA is an NVILA of 2 B parameters (SANA-1.5, section 2.5): a vision tower whose patches are pooled, a two-layer
projector, and a Qwen 2. This is a smaller model of the same kind, in transformers' own classes, so that
`AutoModelForImageTextToText` and `AutoProcessor` load it like any other model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sanactl.shapes.prompts import words

if TYPE_CHECKING:
    from transformers import LlavaConfig, LlavaProcessor, PreTrainedTokenizerFast

__all__ = [
    "CHAT_TEMPLATE",
    "GRID",
    "IMAGE_SIZE",
    "IMAGE_TOKENS",
    "build_processor",
    "build_tokenizer",
    "judge_config",
]

IMAGE_SIZE = 64
# Image tokens a side: each stands for 8 x 8 pixels, about a third of a typical object.
GRID = 8
IMAGE_TOKENS = GRID * GRID
SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>", "<image>")

# A turn is its role and its content; the text around the image is taken as it stands.
CHAT_TEMPLATE = (
    "<bos>{% for message in messages %}{{ message['role'] }}:"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %} <image>{% else %} {{ part['text'] }}{% endif %}"
    "{% endfor %}{% if message['role'] == 'assistant' %}<eos>{% else %} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def build_tokenizer(sentences: Sequence[str], answers: Sequence[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer: the world's words, the answers, and the dialogue.

    Args:
        sentences: the dialogue's fixed sentences. Each is a token of its own, which makes a dialogue 64 image tokens
            and about 15 others; as words it would be 60. The sentences never change, so nothing is lost.
        answers: what the judge can answer.
    """
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    spelled = {w.lower() for s in sentences for w in pre_words(s)}
    known = sorted(spelled | set(words()) | set(answers) | {"user", "assistant", ":", "."})
    vocabulary = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *known))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_tokens([AddedToken(s, normalized=False, special=False) for s in sentences])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        padding_side="left",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def pre_words(text: str) -> list[str]:
    """A text's words and punctuation, as the tokenizer splits them."""
    from tokenizers import pre_tokenizers

    return [word for word, _ in pre_tokenizers.Whitespace().pre_tokenize_str(text)]


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Images to 64 x 64 in [-1, 1], text to tokens, with the chat template."""
    from transformers import LlavaProcessor, SiglipImageProcessorPil

    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    images = SiglipImageProcessorPil(size=side, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=IMAGE_SIZE // GRID,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )


def judge_config(
    vocabulary_size: int, *, width: int = 128, vision_layers: int = 2, text_layers: int = 4
) -> LlavaConfig:
    """A LLaVA with a FocalNet tower of two stages and a Qwen 2 of `text_layers` layers, both `width` wide.

    The tower reads 4-pixel patches that overlap and merges them two by two, each stage `vision_layers` deep. Its
    convolutions do not depend on where an object is: after 80 s on one core, it named 84 % of the shapes in faulty
    pictures, where a SigLIP of 8-pixel patches named 59 % (docs/log.md).
    """
    from transformers import FocalNetConfig, LlavaConfig, Qwen2Config

    vision = FocalNetConfig(
        image_size=IMAGE_SIZE,
        patch_size=IMAGE_SIZE // GRID // 2,
        embed_dim=width // 2,
        hidden_sizes=[width // 2, width],
        depths=[vision_layers, vision_layers],
        focal_levels=[2, 2],
        focal_windows=[3, 3],
        use_conv_embed=True,
        mlp_ratio=3.0,
        drop_path_rate=0.0,
        hidden_size=width,  # what LLaVA's projector asks a tower for
    )
    text = Qwen2Config(
        vocab_size=vocabulary_size,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=text_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=SPECIAL_TOKENS.index("<image>"),
        image_seq_length=IMAGE_TOKENS,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
