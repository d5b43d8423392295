"""Translation between SANA's native layout (the .pth files of the reference code) and the diffusers layout.

The native layout joins the rows of some projections: q, k, v are thirds of `attn.qkv`, and k, v are halves of
`cross_attn.kv_linear`. So the tensors of each layout are spans of the other's bytes, and no value is computed.

Source: `tools/convert_sana_to_diffusers.py` of the reference code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from sanactl.checkpoint.config import CONFIG_DEFAULTS
from sanactl.checkpoint.kinds import describe_kind
from sanactl.checkpoint.spans import TensorRef
from sanactl.errors import InputError
from sanactl.files.json_values import shown

__all__ = ["DROPPED", "implied_config", "native_names", "plain_names", "unfuse"]

# Native tensors that the diffusers layout does not have: it computes the position table, and takes the null caption
# from the text encoder. A note names those that are left out.
DROPPED = re.compile(r"^(pos_embed|y_embedder\.y_embedding|logvar_linear\.(weight|bias))$")

_OUTER = {
    "x_embedder.proj": "patch_embed.proj",
    "y_embedder.y_proj.fc1": "caption_projection.linear_1",
    "y_embedder.y_proj.fc2": "caption_projection.linear_2",
    "t_embedder.mlp.0": "time_embed.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_embed.emb.timestep_embedder.linear_2",
    "t_block.1": "time_embed.linear",
    "attention_y_norm": "caption_norm",
    "final_layer.linear": "proj_out",
}
_SPRINT = {  # with guidance_embeds
    "t_embedder.mlp.0": "time_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_embed.timestep_embedder.linear_2",
    "cfg_embedder.mlp.0": "time_embed.guidance_embedder.linear_1",
    "cfg_embedder.mlp.2": "time_embed.guidance_embedder.linear_2",
}
_BLOCK: Mapping[str, tuple[str, ...]] = {
    "attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attn.proj": ("attn1.to_out.0",),
    "attn.q_norm": ("attn1.norm_q",),
    "attn.k_norm": ("attn1.norm_k",),
    "cross_attn.q_linear": ("attn2.to_q",),
    "cross_attn.kv_linear": ("attn2.to_k", "attn2.to_v"),
    "cross_attn.proj": ("attn2.to_out.0",),
    "cross_attn.q_norm": ("attn2.norm_q",),
    "cross_attn.k_norm": ("attn2.norm_k",),
    "mlp.inverted_conv.conv": ("ff.conv_inverted",),
    "mlp.depth_conv.conv": ("ff.conv_depth",),
    "mlp.point_conv.conv": ("ff.conv_point",),
}
_HEAD_DIM = 32  # of linear self-attention in every published model
_CROSS_HEADS = {2240: (20, 112), 1152: (16, 72)}  # width to (heads, dimensions a head) of cross-attention
# Prefixes that training programs add to names: of the state dict, and of wrappers (anywhere in a name).
_PREFIXES = ("module.", "model.diffusion_model.", "model.", "transformer.")
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# The tensors that the config follows from, in either layout.
_TELLING = {
    "patch": ("x_embedder.proj.weight", "patch_embed.proj.weight"),
    "out": ("final_layer.linear.weight", "proj_out.weight"),
    "caption": ("y_embedder.y_proj.fc1.weight", "caption_projection.linear_1.weight"),
    "point": ("blocks.0.mlp.point_conv.conv.weight", "transformer_blocks.0.ff.conv_point.weight"),
    "bias": ("blocks.0.attn.qkv.bias", "transformer_blocks.0.attn1.to_q.bias"),
    "guidance": ("cfg_embedder.mlp.0.weight", "time_embed.guidance_embedder.linear_1.weight"),
    "norm": ("blocks.0.attn.q_norm.weight", "transformer_blocks.0.attn1.norm_q.weight"),
}


def native_names(config: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Every native tensor of a model with this config, and the diffusers tensors whose rows it joins, in order."""
    outer = {**_OUTER, **(_SPRINT if config["guidance_embeds"] else {})}
    names: dict[str, tuple[str, ...]] = {"final_layer.scale_shift_table": ("scale_shift_table",)}
    for native, diffusers in outer.items():
        for leaf in ("weight",) if native == "attention_y_norm" else ("weight", "bias"):
            names[f"{native}.{leaf}"] = (f"{diffusers}.{leaf}",)
    norms = config["qk_norm"] is not None
    for index in range(config["num_layers"]):
        target = f"transformer_blocks.{index}"
        names[f"blocks.{index}.scale_shift_table"] = (f"{target}.scale_shift_table",)
        for native, parts in _BLOCK.items():
            is_norm = native.endswith("_norm")
            if is_norm and not norms:
                continue
            leaves = ["weight"]
            if (
                not is_norm
                and native != "mlp.point_conv.conv"
                and (native != "attn.qkv" or config["attention_bias"])
            ):
                leaves.append("bias")
            for leaf in leaves:
                names[f"blocks.{index}.{native}.{leaf}"] = tuple(f"{target}.{part}.{leaf}" for part in parts)
    return names


def plain_names(tensors: Mapping[str, TensorRef], where: str) -> dict[str, TensorRef]:
    """The tensors without the prefixes that training programs add to their names ("module.", "_orig_mod.").

    Raises:
        InputError: two tensors would have one name.
    """
    result: dict[str, TensorRef] = {}
    for name, ref in tensors.items():
        plain = _WRAPPERS.sub("", name)
        while prefix := next((p for p in _PREFIXES if plain.startswith(p)), None):
            plain = plain.removeprefix(prefix)
        if plain in result:
            raise InputError(
                f"{where} holds two tensors called {shown(plain)} once their prefixes are taken away"
            )
        result[plain] = ref
    return result


def implied_config(tensors: Mapping[str, TensorRef], where: str) -> dict[str, Any]:
    """The diffusers config that tensors without one imply, in the native layout or diffusers' own.

    Shapes give all settings except the number of heads, which is taken from the published models: 32 channels for each
    self-attention head, and 20 x 112 or 16 x 72 for cross-attention at width 2240 or 1152.

    Raises:
        InputError: a tensor that the config follows from is missing, or the width is not a published one.
    """

    def find(what: str) -> TensorRef | None:
        return next((tensors[name] for name in _TELLING[what] if name in tensors), None)

    def shape(what: str, dimensions: int) -> tuple[int, ...]:
        ref = find(what)
        if ref is None or len(ref.shape) != dimensions or 0 in ref.shape:
            raise InputError(f"{where} is not a SANA checkpoint: {describe_kind(tensors)}")
        return ref.shape

    width, channels, patch, _ = shape("patch", 4)
    if width not in _CROSS_HEADS:
        raise InputError(
            f"{where} has the width {width}; how it splits into heads is known for {', '.join(map(str, _CROSS_HEADS))}",
            hint="give its diffusers config with --config config.json",
        )
    matches = (re.match(r"(?:transformer_)?blocks\.([0-9]{1,6})\.", name) for name in tensors)
    hidden = shape("point", 4)[1]
    ratio = hidden / width
    heads, head_dim = _CROSS_HEADS[width]
    config = {
        **CONFIG_DEFAULTS,
        "_class_name": "SanaTransformer2DModel",
        "in_channels": channels,
        "out_channels": shape("out", 2)[0] // (patch * patch),
        "num_attention_heads": width // _HEAD_DIM,
        "attention_head_dim": _HEAD_DIM,
        "num_layers": len({int(match[1]) for match in matches if match}),
        "num_cross_attention_heads": heads,
        "cross_attention_head_dim": head_dim,
        "cross_attention_dim": width,
        "caption_channels": shape("caption", 2)[1],
        # the class rounds the product down
        "mlp_ratio": ratio if int(ratio * width) == hidden else math.nextafter(ratio, math.inf),
        "attention_bias": find("bias") is not None,
        "patch_size": patch,
        "guidance_embeds": find("guidance") is not None,
        "qk_norm": "rms_norm_across_heads" if find("norm") is not None else None,
    }
    if "pos_embed" in tensors and len(tensors["pos_embed"].shape) == 3:
        side = math.isqrt(tensors["pos_embed"].shape[1]) * patch
        config["sample_size"] = side
        # 2048 and 4096 px models interpolate their position table (the converter's own table)
        config["interpolation_scale"] = {64: 1.0, 128: 2.0}.get(side)
    return config


def unfuse(
    tensors: Mapping[str, TensorRef], config: Mapping[str, Any], where: str
) -> tuple[dict[str, TensorRef], list[str]]:
    """Native tensors under their diffusers names; joined tensors become spans of their rows.

    Returns:
        the diffusers tensors, and the names of native tensors that have no counterpart there.

    Raises:
        InputError: names a native tensor that is missing, unknown, or cannot be split evenly.
    """
    names = native_names(config)
    result: dict[str, TensorRef] = {}
    for native, targets in names.items():
        if native not in tensors:
            raise InputError(f"{where} lacks the tensor {native}")
        ref = tensors[native]
        if len(targets) > 1 and (not ref.shape or ref.shape[0] % len(targets)):
            raise InputError(f"{where}: {native} of shape {ref.shape} does not split into {len(targets)}")
        rows = ref.shape[0] // len(targets) if len(targets) > 1 else 0
        for number, target in enumerate(targets):
            result[target] = ref.rows(number * rows, (number + 1) * rows) if rows else ref
    strange = [name for name in tensors if name not in names and not DROPPED.match(name)]
    if strange:
        raise InputError(f"{where} holds {shown(strange[0])}, which has no counterpart in diffusers")
    return result, [name for name in tensors if name not in names]
