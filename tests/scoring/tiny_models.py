"""Tiny random models of the classes that score real images, saved as their users find them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sanactl.prompts.geneval.vocabulary import COLORS


def save_mask2former(folder: Path, classes: list[str], seed: int = 0) -> Path:
    """A Mask2Former with a Swin, in which every query is sure of its class."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    torch.manual_seed(seed)
    swin = SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=swin,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=16,
        num_queries=12,
        id2label=dict(enumerate(classes)),
        label2id={name: number for number, name in enumerate(classes)},
    )
    model = Mask2FormerForUniversalSegmentation(config)
    with torch.no_grad():
        # The last class is that of no object: without it and with spread, many objects pass the confidence.
        model.class_predictor.weight.mul_(40 if len(classes) < 10 else 4)
        model.class_predictor.bias[-1] = -20
    model.save_pretrained(folder)
    return folder


def save_clip(folder: Path, words: list[str] | None = None, seed: int = 0, length: int = 77) -> Path:
    """A CLIP whose tokenizer knows single letters and some words."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    torch.manual_seed(seed)
    letters = [chr(c) for c in range(33, 127)]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    merges: list[tuple[str, str]] = []
    for word in words or [*COLORS, "photo", "object", "of"]:
        # Each merge of a word's beginning with its next letter is a token.
        parts = [*word[:-1], f"{word[-1]}</w>"]
        for end in range(2, len(parts) + 1):
            pair = "".join(parts[: end - 1]), parts[end - 1]
            if pair not in merges:
                merges.append(pair)
                if "".join(pair) not in vocabulary:
                    vocabulary.insert(-2, "".join(pair))
    tokenizer = CLIPTokenizer(vocab={token: n for n, token in enumerate(vocabulary)}, merges=merges)
    tokenizer.save_pretrained(folder)
    shape: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    special: dict[str, Any] = {
        "bos_token_id": len(vocabulary) - 2,
        "eos_token_id": len(vocabulary) - 1,
        "pad_token_id": len(vocabulary) - 1,
    }
    config = CLIPConfig(
        text_config={**shape, **special, "vocab_size": len(vocabulary), "max_position_embeddings": length},
        vision_config={**shape, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    model = CLIPModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "weight" in name and "norm" not in name:
                parameter.mul_(20)  # random weights are near zero, and all images alike
    model.save_pretrained(folder)
    return folder
