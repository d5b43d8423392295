"""Loading and checking a checkpoint's components: tokenizer, text encoder and VAE.

Each is tried once on a small input, so a component that does not work is noticed before the run begins. A component's
files cannot make the program run their code or download anything.

In all functions, `source` is a local folder, or a Hub id with `options` (subfolder, revision).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from sanactl.errors import InputError
from sanactl.files.json_values import brief
from sanactl.model.guard import (
    Weights,
    check_loaded,
    local_folder,
    offline,
    read_config,
    reading,
    weight_files,
)
from sanactl.model.pretrained import load_checked, load_kept, place_on
from sanactl.model.tensors import steady_files

__all__ = [
    "load_text_encoder",
    "load_tokenizer",
    "load_vae",
]


def load_tokenizer(source: str, options: dict[str, Any]) -> Any:
    """A tokenizer that pads to a fixed length.

    Raises:
        InputError: it cannot be loaded, or does not pad to a fixed length.
    """
    from transformers import AutoTokenizer

    folder = local_folder(source)
    if folder is not None:
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            if (folder / name).exists():
                read_config(folder, name)
    with offline(folder), reading(source):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
        # Prompts are cut where they are encoded; the tokenizer's own limit would only add warnings.
        tokenizer.model_max_length = 1 << 30
        ids = tokenizer(
            ["a red circle"], padding="max_length", max_length=8, truncation=True, return_tensors="pt"
        )["input_ids"]
        if ids.shape != (1, 8):
            raise InputError(f"{source}: it pads to {ids.shape[-1]} tokens where 8 were asked for")
    return tokenizer


def load_text_encoder(
    source: str, options: dict[str, Any], *, device: Any, dtype: torch.dtype, keep: bool = False
) -> Any:
    """A text encoder, without a language-model head if it was saved with one.

    Args:
        keep: keep the weights of a large model in their file's dtype, where the cast to `dtype` is exact (`sanactl.model.stored`).

    Raises:
        InputError: it cannot be loaded, its weights are not those of its config, or it gives no hidden states.
    """
    from transformers import AutoModel

    folder = local_folder(source)
    weights = None
    if folder is not None:
        read_config(folder)
        weights = weight_files(folder, "model")
    variant: dict[str, Any] = {} if weights is None else _variant(weights)
    with offline(folder), reading(source):
        kept = load_kept(AutoModel, source, weights, dtype) if keep and weights is not None else None
        model = (
            load_checked(AutoModel, source, weights, dtype, options, use_safetensors=True, **variant)
            if kept is None
            else kept
        )
        model = getattr(model, "get_decoder", lambda: model)() if hasattr(model, "lm_head") else model
        model = _placed(model, device) if kept is None else model.eval().requires_grad_(False)
        ids = torch.zeros(1, 2, dtype=torch.int64, device=device)
        with torch.no_grad():
            hidden = model(ids, attention_mask=torch.ones_like(ids))[0]
        if hidden.ndim != 3 or hidden.shape[:2] != (1, 2) or not bool(torch.isfinite(hidden).all()):
            raise InputError(f"{source} gives no finite embedding for each token")
    return model


def load_vae(source: str, options: dict[str, Any], *, device: Any, dtype: torch.dtype) -> Any:
    """SANA's autoencoder, an `AutoencoderDC`.

    Raises:
        InputError: it cannot be loaded, its weights are not those of its config, or it does not give back an image of
            the size that it was given.
    """
    from diffusers import AutoencoderDC

    folder = local_folder(source)
    if folder is not None:
        options = {**options, **_variant(_checked_vae(folder))}
    with offline(folder), reading(source):
        with steady_files(source) as mapped:
            vae, info = AutoencoderDC.from_pretrained(
                source, torch_dtype=dtype, use_safetensors=True, output_loading_info=True, **options, **mapped
            )
        check_loaded(info, source)
        scale = vae.config.scaling_factor
        if type(scale) not in (int, float) or not math.isfinite(scale) or scale <= 0:
            raise InputError(f"{source}: its scaling_factor is {brief(scale)}, no positive number")
        vae = _placed(vae, device)
        side = 2 ** (len(vae.config.encoder_block_out_channels) - 1)
        image = torch.zeros(1, 3, side, side, device=device, dtype=dtype)
        with torch.no_grad():
            back = vae.decode(vae.encode(image, return_dict=False)[0], return_dict=False)[0]
        if back.shape != image.shape:
            raise InputError(f"{source} makes {tuple(back.shape)} of an image of {tuple(image.shape)}")
    return vae


def _checked_vae(folder: Path) -> Weights:
    """The weights of a VAE in a local folder, after checking each tensor's shape against the config."""
    from diffusers import AutoencoderDC

    config = read_config(folder)
    if config.get("_class_name") not in (None, "AutoencoderDC"):
        raise InputError(
            f"{folder / 'config.json'} is of the class {brief(config['_class_name'])}, not AutoencoderDC",
            hint="SANA's VAE is a deep-compression autoencoder (DC-AE)",
        )
    weights = weight_files(folder, "diffusion_pytorch_model")
    with reading(f"{folder / 'config.json'}"), torch.device("meta"):
        model = AutoencoderDC.from_config(config)
    for name, value in model.state_dict().items():
        if name not in weights.tensors:
            raise InputError(f"{folder} lacks the tensor {name}", hint="copy or download it again")
        stored = weights.tensors[name].shape
        if stored != tuple(value.shape):
            raise InputError(
                f"{weights.files[name]}: {name} has the shape {stored} where its config needs {tuple(value.shape)}"
            )
    return weights


def _variant(weights: Weights) -> dict[str, str]:
    return {} if weights.variant is None else {"variant": weights.variant}


def _placed(model: Any, device: Any) -> Any:
    return place_on(model.eval().requires_grad_(False), device)
