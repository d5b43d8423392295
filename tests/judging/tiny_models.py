"""Vision-language models of transformers, tiny and with random weights, saved as the Hub has them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from sanactl.judging.dialogue import DIALOGUES

WIDTH = 64  # bitsandbytes takes rows of whole blocks, of 64
PROMPTS = ("a photo of a red square and an orange star", "heart", "a photo of four crosses", "a blue circle")
TEXT: dict[str, Any] = {
    "hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 4096, "tie_word_embeddings": False,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
# Rotary positions in time, height and width: 16 / 2 frequencies among the three.
ROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 2, 2]}


def tokenizer(special: Sequence[str], **named: str) -> Any:
    """One of words, with special tokens; `named` are attributes of the tokenizer, as `image_token`."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    text = " ".join((*(d.text for d in DIALOGUES.values()), *PROMPTS, "user assistant User Assistant think"))
    words = sorted(set(re.findall(r"\w+|[^\w\s]+", text)) | {"yes", "no", "Yes", "No"})
    tokens = dict.fromkeys(("<pad>", "<bos>", "<eos>", "<unk>", *special, *named.values(), *words))
    made = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens([AddedToken(t, normalized=False) for t in (*special, *named.values())])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        extra_special_tokens=named,
        clean_up_tokenization_spaces=False,
    )


def template(image: str, *, thinks: bool = False) -> str:
    """A chat template that writes `image` for an image; with `thinks` it has the switch of thinking models."""
    switch = "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}" if thinks else ""
    return (
        "{% for m in messages %}{{ m['role'] }} : {% for p in m['content'] %}"
        "{% if p['type'] == 'image' %}" + image + "{% else %} {{ p['text'] }} {% endif %}"
        "{% endfor %}<eos>{% endfor %}{% if add_generation_prompt %}assistant : " + switch + "{% endif %}"
    )


def save(
    folder: Path, model: Any, tokens: Any, images: Any, processor: str, chat: str, **settings: Any
) -> Path:
    """A folder as on the Hub: no video processor can be made here, so the processor's file is written by hand."""
    model.save_pretrained(folder)
    tokens.chat_template = None
    tokens.save_pretrained(folder)
    images.save_pretrained(folder)
    file = folder / "preprocessor_config.json"
    if file.exists():
        file.write_text(json.dumps({**json.loads(file.read_text()), "processor_class": processor}))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": processor, **settings}))
    (folder / "chat_template.jinja").write_text(chat)
    return folder


def qwen25_vl(folder: Path) -> Path:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

    tokens = tokenizer(("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"))
    ids = tokens.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2, "hidden_size": WIDTH, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": WIDTH,
            "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 32,
            "fullatt_block_indexes": [1],
        },
        text_config={**TEXT, "vocab_size": len(tokens), "rope_parameters": ROPE},
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
    )  # fmt: skip
    images = Qwen2VLImageProcessorPil(patch_size=8, merge_size=2, min_pixels=16 * 16, max_pixels=96 * 96)
    chat = template("<|vision_start|><|image_pad|><|vision_end|>", thinks=True)
    model = Qwen2_5_VLForConditionalGeneration(config)
    return save(folder, model, tokens, images, "Qwen2_5_VLProcessor", chat)


def qwen3_vl(folder: Path) -> Path:
    from transformers import Qwen2VLImageProcessorPil, Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tokens = tokenizer(("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"))
    ids = tokens.convert_tokens_to_ids
    config = Qwen3VLConfig(
        vision_config={
            "depth": 2, "hidden_size": WIDTH, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": WIDTH,
            "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        text_config={
            **TEXT, "vocab_size": len(tokens), "rope_parameters": {**ROPE, "mrope_interleaved": True},
        },
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
    )  # fmt: skip
    images = Qwen2VLImageProcessorPil(
        patch_size=8,
        merge_size=2,
        size={"shortest_edge": 16 * 16, "longest_edge": 96 * 96},
    )
    chat = template("<|vision_start|><|image_pad|><|vision_end|>")
    return save(folder, Qwen3VLForConditionalGeneration(config), tokens, images, "Qwen3VLProcessor", chat)


def _idefics(folder: Path, config: Any, model: Any, images: Any, processor: str) -> Path:
    """Idefics3 and SmolVLM: tiles of 32 pixels with names of rows and columns, and the whole image."""
    places = [f"<row_{r}_col_{c}>" for r in range(1, 5) for c in range(1, 5)]
    tokens = tokenizer(
        ("<video>", "<end_of_utterance>", *places),
        image_token="<image>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
    )
    made = config(
        vision_config={
            "hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 8,
        },
        text_config={**TEXT, "vocab_size": len(tokens), "model_type": "llama"},
        image_token_id=tokens.convert_tokens_to_ids("<image>"), scale_factor=2, pad_token_id=0,
        tie_word_embeddings=False,
    )  # fmt: skip
    shrunk = images(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    return save(folder, model(made), tokens, shrunk, processor, template("<image>"), image_seq_len=4)


def idefics3(folder: Path) -> Path:
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessorPil

    found = (Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessorPil)
    return _idefics(folder, *found, "Idefics3Processor")


def smolvlm(folder: Path) -> Path:
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMImageProcessorPil

    found = (SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMImageProcessorPil)
    return _idefics(folder, *found, "SmolVLMProcessor")


def gemma3(folder: Path) -> Path:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3ImageProcessorPil

    tokens = tokenizer(
        (), boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<image_soft_token>"
    )
    ids = tokens.convert_tokens_to_ids
    config = Gemma3Config(
        vision_config={
            "hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 8, "vision_use_head": False,
        },
        text_config={
            **TEXT, "vocab_size": len(tokens), "sliding_window": 16, "query_pre_attn_scalar": 16,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        mm_tokens_per_image=4, image_token_index=ids("<image_soft_token>"),
        boi_token_index=ids("<start_of_image>"), eoi_token_index=ids("<end_of_image>"),
    )  # fmt: skip
    images = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    chat = "<bos>" + template("<start_of_image>")
    model = Gemma3ForConditionalGeneration(config)
    # A new one's projector is zero: it would not see the image.
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.2)
    return save(folder, model, tokens, images, "Gemma3Processor", chat, image_seq_length=4)


def internvl(folder: Path) -> Path:
    from transformers import GotOcr2ImageProcessorPil, InternVLConfig, InternVLForConditionalGeneration

    tokens = tokenizer(
        (), start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )  # fmt: skip
    config = InternVLConfig(
        vision_config={
            "hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": [32, 32], "patch_size": [8, 8],
        },
        text_config={**TEXT, "vocab_size": len(tokens), "model_type": "qwen2"},
        image_token_id=tokens.convert_tokens_to_ids("<IMG_CONTEXT>"), image_seq_length=4, downsample_ratio=0.5,
    )  # fmt: skip
    images = GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    chat = template("<IMG_CONTEXT>")
    model = InternVLForConditionalGeneration(config)
    return save(folder, model, tokens, images, "InternVLProcessor", chat, image_seq_length=4)


FAMILIES: dict[str, Callable[[Path], Path]] = {
    f.__name__: f for f in (qwen25_vl, qwen3_vl, idefics3, smolvlm, gemma3, internvl)
}


def make(family: str, folder: Path) -> Path:
    """The folder of a new model of this family."""
    torch.manual_seed(5)
    return FAMILIES[family](folder)
