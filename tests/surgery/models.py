"""Checkpoints as the real diffusers class, and what it computes with them."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import SanaTransformer2DModel
from safetensors.torch import load_file

from sanactl.checkpoint.open import open_checkpoint


def load(path: Path) -> SanaTransformer2DModel:
    if path.is_dir():
        return SanaTransformer2DModel.from_pretrained(path).eval()
    model = SanaTransformer2DModel.from_config(dict(open_checkpoint(path).config))
    model.load_state_dict(load_file(path), strict=True)
    return model.eval()


def output(model: SanaTransformer2DModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    config = model.config
    latents = torch.randn(2, config.in_channels, 8, 8, generator=generator)
    text = torch.randn(2, 5, config.caption_channels, generator=generator)
    mask = torch.tensor([[1.0, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    with torch.no_grad():
        return model(latents, text, torch.tensor([3.0, 700.0]), encoder_attention_mask=mask).sample
