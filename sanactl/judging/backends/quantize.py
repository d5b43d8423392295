"""Loading options that quantize a vision-language model's language model with bitsandbytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from sanactl.errors import InputError, UsageError

__all__ = ["QUANTIZED", "quantized_loading"]

QUANTIZED = ("8bit", "4bit")


def quantized_loading(kind: str, place: str, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Options of `from_pretrained` that load a model's language model in 8 or 4 bits.

    Vision tower, projector and output layer stay in `dtype`, by their explicit names: what transformers leaves out by
    itself is the output layer alone, and not that of every model (its issue 45674).

    Args:
        kind: "8bit" (LLM.int8) or "4bit" (NF4), or "" for no options.
        place: a folder with a config.json, or a Hub id.
        device: where the model is loaded.
        dtype: of the other parts, and of the products.

    Raises:
        UsageError: no such kind.
        InputError: bitsandbytes is missing, or the model's language model cannot be told from the rest.
    """
    if not kind:
        return {}
    if kind not in QUANTIZED:
        raise UsageError(f"quantize is {kind!r}", hint=f"it takes {' or '.join(QUANTIZED)}")
    from transformers import BitsAndBytesConfig
    from transformers.utils import is_bitsandbytes_available

    if not is_bitsandbytes_available():
        raise InputError(
            "quantize needs bitsandbytes, which does not run here", hint="pip install bitsandbytes"
        )
    common: dict[str, Any] = {"llm_int8_skip_modules": _kept_parts(place)}
    if kind == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True, **common)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, **common
        )
    return {"quantization_config": config, "device_map": {"": device}}


def _kept_parts(place: str) -> list[str]:
    """The names of the modules beside the language model: vision tower, projector, output layer."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    language = model.get_decoder()
    kept = list(_beside(model, language, ""))
    if language is model or not kept:
        raise InputError(f"{place}: its language model is not a part of its own, so it is not quantized")
    return kept


def _beside(module: torch.nn.Module, wanted: torch.nn.Module, prefix: str) -> Iterator[str]:
    for name, child in module.named_children():
        if child is wanted:
            continue
        if any(part is wanted for part in child.modules()):
            yield from _beside(child, wanted, f"{prefix}{name}.")
        else:
            yield prefix + name
