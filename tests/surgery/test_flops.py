"""FLOPs of a forward pass, held against torch's own counter on the real module."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import SanaTransformer2DModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sanactl.bench.synthetic import SANA_1_6B, TINY
from sanactl.checkpoint.sana import check_config, forward_flops


def counted(config: dict[str, Any], text_tokens: int) -> int:
    """Matrix products and convolutions of one pass of one image, by torch's counter."""
    model = SanaTransformer2DModel.from_config(config)
    latents = torch.randn(1, config["in_channels"], config["sample_size"], config["sample_size"])
    text = torch.randn(1, text_tokens, config["caption_channels"])
    # The counter does not know the CPU's fused attention; as plain products it counts.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(latents, text, torch.tensor([500.0]))
    return counter.get_total_flops()


@pytest.mark.parametrize("text_tokens", [300, 7])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"num_layers": 1, "qk_norm": None},
        {"sample_size": 16, "patch_size": 2},
        {"num_cross_attention_heads": 4, "cross_attention_head_dim": 6, "cross_attention_dim": 16},
        {"mlp_ratio": 2.3, "attention_bias": True, "out_channels": 8},
    ],
)
def test_flops_are_those_that_torch_counts(change: dict[str, Any], text_tokens: int) -> None:
    config = check_config({**TINY, **change}, "test")
    assert forward_flops(config, text_tokens=text_tokens) == counted(dict(config), text_tokens)


def test_flops_grow_with_depth_and_linearly_with_image_tokens() -> None:
    sizes = [forward_flops(check_config({**SANA_1_6B, "num_layers": n}, "test")) for n in (20, 40, 60)]
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0]
    config = check_config(SANA_1_6B, "test")
    tokens = [forward_flops(config, tokens=n) for n in (1024, 2048, 3072)]
    assert tokens[2] - tokens[1] == tokens[1] - tokens[0]
