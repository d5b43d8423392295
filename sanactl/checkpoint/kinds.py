"""Guess what a file holds, from its tensors' names or a config's numbers, for messages and for `inspect`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sanactl.checkpoint.config import SanaConfig
from sanactl.files.json_values import shown

__all__ = ["describe_kind", "guess_kind", "model_name"]

# Patterns of tensor names in other models' files; the first pattern found decides.
_KINDS: tuple[tuple[str, str], ...] = (
    (r"lora_(A|B|down|up)\b|\.lora\.", "it seems to be a LoRA adapter"),
    (r"(^|\.)controlnet(_blocks)?\.|^input_block\.", "it seems to be a ControlNet of SANA, which sanactl does not work on"),
    (r"\.ff\.conv_temp\.|\.mlp\.t_conv\.|^patch_embedding\.weight", "it seems to be SANA-Video, which sanactl does not work on"),
    (r"^(model\.diffusion_model\.)?blocks\.0\.cross_attn\.kv_linear\.", "it holds SANA's native layout; sanactl convert reads it"),
    (r"(^|\.)_orig_mod\.|^module\.", "its names have a training program's prefixes; sanactl convert removes them"),
    (r"double_blocks\.|single_transformer_blocks\.", "it seems to be a FLUX transformer"),
    (r"joint_blocks\.|transformer_blocks\.0\.attn\.add_k_proj", "it seems to be a Stable Diffusion 3 transformer"),
    (r"model\.diffusion_model\.|^(down|up)_blocks\.\d+\.attentions\.", "it seems to be a Stable Diffusion UNet"),
    (r"^transformer_blocks\.0\.ff\.net\.", "it seems to be a PixArt-like transformer"),
    (r"vision_tower\.|visual\.|mm_projector|multi_modal_projector", "it seems to be a vision-language model"),
    (r"^(model\.)?layers\.0\.self_attn\.|^model\.embed_tokens", "it seems to be a language model (a text encoder?)"),
    (r"text_model\.|^encoder\.layer\.", "it seems to be a text encoder"),
    (r"^(encoder|decoder)\.(conv_in|project_in|down_blocks|up_blocks|conv_out)", "it seems to be an autoencoder (VAE)"),
    (r"^optimizer|exp_avg", "it seems to be an optimizer's state"),
)  # fmt: skip


def guess_kind(names: Iterable[str]) -> str | None:
    """A clause that says what a file with these tensor names seems to be, or None if the names do not tell."""
    names = list(names)
    for pattern, kind in _KINDS:
        search = re.compile(pattern).search
        if any(search(name) for name in names):
            return kind
    return None


def describe_kind(names: Iterable[str]) -> str:
    """`guess_kind`, or else a clause with the first tensor's name."""
    names = list(names)
    if not names:
        return "it holds no tensors"
    return guess_kind(names) or f"its tensors look like {shown(names[0])}"


# (width, blocks) of the published models
_PUBLISHED = {(1152, 28): "0.6B", (2240, 20): "1.6B", (2240, 60): "4.8B"}


def model_name(config: SanaConfig) -> str:
    """The name of a model with this config: "SANA-1.5 4.8B", "SANA-Sprint 0.6B", "SANA of 10 blocks, width 96"."""
    family = "SANA-Sprint" if config.guidance_embeds else "SANA" if config.qk_norm is None else "SANA-1.5"
    size = _PUBLISHED.get((config.width, config.num_layers))
    if size is None:
        return (
            f"{family} of {config.num_layers} block{'s' * (config.num_layers != 1)}, width {config.width:,}"
        )
    return f"{family} {size}"
