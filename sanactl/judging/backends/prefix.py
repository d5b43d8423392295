"""The text before the image, computed once: it is the same for all images of a dialogue.

A causal model's keys and values of the first tokens do not depend on what follows. Where the dialogue has text before the
image (the paper's has), they are computed once and shared by all rows of all batches. A LLaVA with 60 tokens of text
before 256 of the image judged 11 % faster on a CPU. The built-in judge has 4 tokens there, gains nothing, and does without.

Models whose tokens have kinds (positions of several dimensions, attention in both directions within an image) are asked
in the plain way. Any other model is tried when it is loaded, and asked in the plain way if its logits differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

__all__ = ["IMAGES", "PROMPTS", "TextPrefix", "open_prefix"]

LEAST = 8  # tokens; below that nothing is gained
# How much the logits may differ, as a share of the largest: in float32, and in other dtypes in steps of the dtype.
SHARE, STEPS = 2e-5, 2.0
# Inputs that tell an image's tokens from a text's, where positions or attention depend on that.
KINDS = ("token_type_ids", "mm_token_type_ids")
# What a model is tried with: images of two sizes, the same on every machine, with prompts of two lengths that begin differently.
IMAGES = [np.full((64, 64, 3), 200, dtype=np.uint8), np.zeros((48, 96, 3), dtype=np.uint8)]
IMAGES[1][:, 32:64] = 255
PROMPTS = ["a photo of a red circle above a blue square", "seven blue squares"]


class TextPrefix:
    """Keys and values of a text's first tokens.

    Args:
        model: an image-text-to-text model of transformers.
        ids: the tokens [tokens].
    """

    def __init__(self, model: Any, ids: torch.Tensor) -> None:
        self.model, self.ids = model, ids
        with torch.no_grad():
            cache = model(input_ids=ids[None], use_cache=True, logits_to_keep=1).past_key_values
        self.layers = [(layer.keys, layer.values) for layer in cache.layers]

    def next_logits(self, inputs: dict[str, Any]) -> torch.Tensor | None:
        """The logits [pairs, vocabulary] of the token that follows; None where a row does not begin with the prefix.

        Args:
            inputs: the processor's, padded on the left, with `input_ids` and `attention_mask` [pairs, tokens].
        """
        from transformers import DynamicCache

        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        rows, length = ids.shape
        count = len(self.ids)
        # Where the prefix is in each row: behind the padding.
        places = (length - mask.sum(-1, keepdim=True)) + torch.arange(count, device=ids.device)
        if int(places.max()) >= length or not bool((ids.gather(1, places) == self.ids).all()):
            return None
        rest = torch.ones_like(ids, dtype=torch.bool).scatter(1, places, False)
        given = {
            name: value[rest].view(rows, length - count)
            if isinstance(value, torch.Tensor) and value.shape == ids.shape
            else value
            for name, value in inputs.items()
        }
        given["attention_mask"] = torch.cat([mask.new_ones(rows, count), given["attention_mask"]], dim=1)
        positions = (given["attention_mask"].cumsum(-1) - 1)[:, count:].clamp(min=0)
        cache = DynamicCache()
        for number, pair in enumerate(self.layers):
            cache.update(*(part.expand(rows, -1, -1, -1) for part in pair), number)
        output = self.model(
            **given, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits


def open_prefix(
    model: Any, image_token: int, inputs: dict[str, Any], plain: Callable[[dict[str, Any]], torch.Tensor]
) -> TextPrefix | None:
    """What the model allows to be shared, or None.

    Args:
        model: see `TextPrefix`.
        image_token: the id of the image's place.
        inputs: the processor's for `IMAGES` and `PROMPTS`, or others of two images with prompts that begin differently.
        plain: gives the logits of some inputs in the plain way.
    """
    if any(kind in inputs for kind in KINDS) or _has_mrope(model.config):
        return None
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    texts = [row[some] for row, some in zip(ids, mask, strict=True)]
    count = 0
    for tokens in zip(*(text.tolist() for text in texts), strict=False):
        if len(set(tokens)) > 1 or image_token in tokens:
            break
        count += 1
    if count < LEAST or not any(image_token in text.tolist() for text in texts):
        return None
    try:
        with torch.inference_mode():
            prefix = TextPrefix(model, texts[0][:count])
            shared = prefix.next_logits(inputs)
            expected = plain(inputs)
    # Errors of the model's own code, which may not be written for this: the plain way is used.
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError):
        return None
    if shared is None or shared.shape != expected.shape:
        return None
    largest = float(expected.abs().max())
    share = SHARE if expected.dtype == torch.float32 else STEPS * torch.finfo(expected.dtype).eps
    apart = float((shared.float() - expected.float()).abs().max())
    return prefix if apart <= share * largest else None


def _has_mrope(config: Any) -> bool:
    """Whether positions have several dimensions, so that those of a text depend on the images before it."""
    return "mrope_section" in str(config.to_dict())
