"""The native layout of SANA (the .pth files of the reference code) seen as the diffusers one, and back.

Fused projections differ only in that their rows lie together: q, k, v are thirds of `attn.qkv`, k, v are halves of
`cross_attn.kv_linear`. So either layout is spans of the other's bytes, and no value is ever computed.

Source: `tools/convert_sana_to_diffusers.py` of the reference code.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.io.checkpoint import Checkpoint, Stamp, TensorRef
from sanactl.io.ckpt_metadata import decode_metadata, resolve_companions
from sanactl.io.ckpt_pth import read_pth
from sanactl.io.ckpt_sana import CONFIG_DEFAULTS, check_config, check_tensors, guess_kind
from sanactl.io.safetensors import read_header

__all__ = ["DROPPED", "native_config", "native_names", "open_native", "unfuse"]

# Native tensors without a place in diffusers: computed there (position table) or taken from the text encoder (null
# caption). They are named when they are left behind.
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
_PREFIXES = ("model.diffusion_model.", "module.")


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


def native_config(tensors: Mapping[str, TensorRef], where: str) -> dict[str, Any]:
    """The diffusers config that native tensors imply.

    Shapes give all but the split into heads, which is that of the published models: 32 channels a self-attention head,
    and 20 x 112 or 16 x 72 for cross-attention at width 2240 or 1152.

    Raises:
        InputError: a tensor that the config follows from is missing, or the width is not a published one.
    """

    def shape(name: str, dimensions: int) -> tuple[int, ...]:
        if name not in tensors or len(tensors[name].shape) != dimensions or 0 in tensors[name].shape:
            raise InputError(f"{where} is not a native SANA checkpoint: {guess_kind(tensors)}")
        return tensors[name].shape

    width, channels, patch, _ = shape("x_embedder.proj.weight", 4)
    if width not in _CROSS_HEADS:
        raise InputError(
            f"{where} has the width {width}; how it splits into heads is known for {', '.join(map(str, _CROSS_HEADS))}",
            hint="give its diffusers config with --config config.json",
        )
    numbers = {
        int(match[1]) for match in (re.match(r"blocks\.(\d{1,6})\.", name) for name in tensors) if match
    }
    heads, head_dim = _CROSS_HEADS[width]
    config = {
        **CONFIG_DEFAULTS,
        "in_channels": channels,
        "out_channels": shape("final_layer.linear.weight", 2)[0] // (patch * patch),
        "num_attention_heads": width // _HEAD_DIM,
        "attention_head_dim": _HEAD_DIM,
        "num_layers": len(numbers),
        "num_cross_attention_heads": heads,
        "cross_attention_head_dim": head_dim,
        "cross_attention_dim": width,
        "caption_channels": shape("y_embedder.y_proj.fc1.weight", 2)[1],
        "mlp_ratio": shape("blocks.0.mlp.point_conv.conv.weight", 4)[1] / width,
        "attention_bias": "blocks.0.attn.qkv.bias" in tensors,
        "patch_size": patch,
        "guidance_embeds": "cfg_embedder.mlp.0.weight" in tensors,
        "qk_norm": "rms_norm_across_heads" if "blocks.0.attn.q_norm.weight" in tensors else None,
    }
    if "pos_embed" in tensors:
        side = math.isqrt(shape("pos_embed", 3)[1]) * patch
        config["sample_size"] = side
        # 2048 and 4096 px models interpolate their position table (the converter's own table)
        config["interpolation_scale"] = {64: 1.0, 128: 2.0}.get(side)
    return config


def unfuse(
    tensors: Mapping[str, TensorRef], config: Mapping[str, Any], where: str
) -> tuple[dict[str, TensorRef], list[str]]:
    """Native tensors under their diffusers names, fused ones as spans of their rows.

    Returns:
        the diffusers tensors, and the names of native ones that have no place there.

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
        raise InputError(f"{where} holds {strange[0]}, which has no counterpart in diffusers")
    return result, [name for name in tensors if name not in names]


def open_native(path: str | os.PathLike[str], config: Mapping[str, Any] | None = None) -> Checkpoint:
    """Open a checkpoint in the native layout, .pth or .safetensors, as if it were in the diffusers one.

    Args:
        path: the file.
        config: diffusers config; default what sanactl stored in the file, else `native_config`.

    Returns:
        a checkpoint of kind "native". `metadata["sanactl.dropped"]` names, comma-separated, what it leaves out.
    """
    where, path = os.fspath(path), Path(path).expanduser()
    if path.suffix.lower() in (".st", ".safetensors"):
        header = read_header(path)
        strings = header.metadata
        raw = {n: TensorRef(path, i.offset, i.nbytes, i.dtype, i.shape) for n, i in header.tensors.items()}
    else:
        raw, strings = read_pth(path)
    stamp = Stamp.of(os.stat(path))
    tensors = {}
    for name, ref in raw.items():
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        tensors[name] = ref
    stored, companions, sampling, lineage = decode_metadata(strings, where)
    full = check_config(config or stored or native_config(tensors, where), where)
    full = {key: value for key, value in full.items() if key != "_class_name"}
    if not any(name.startswith("blocks.0.") for name in tensors):
        raise InputError(f"{where} is not a native SANA checkpoint: {guess_kind(tensors)}")
    named, dropped = unfuse(tensors, full, where)
    check_tensors({name: ref.shape for name, ref in named.items()}, full, where)
    return Checkpoint(
        ref=where,
        path=path,
        kind="native",
        tensors=named,
        config=full,
        companions=resolve_companions(companions, path.parent),
        sampling=sampling,
        lineage=lineage,
        metadata={**strings, **({"sanactl.dropped": ", ".join(dropped)} if dropped else {})},
        headers=((path, 0),),
        stamps={path: stamp},
    )
