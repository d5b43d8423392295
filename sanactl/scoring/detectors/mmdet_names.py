"""mmdet's names of Mask2Former's tensors in transformers' names, and the config that follows from their shapes.

mmdet 2.x and 3.x name the same tensors differently; both are read. `P` and `T` below are transformers'
`model.pixel_level_module` and `model.transformer_module`.

Source: mmdet `models/backbones/swin.py`, `models/plugins/msdeformattn_pixel_decoder.py`,
`models/dense_heads/mask2former_head.py` (2.25 and 3.3); transformers `models/mask2former`, `models/swin`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

from sanactl.errors import InputError

__all__ = ["QKV", "hub_config", "hub_name", "is_index", "is_merging", "old_name"]

P, T = "model.pixel_level_module", "model.transformer_module"
# mmdet 3.x's names below its two stacks of layers, in those of 2.x.
_LATER = (
    (r"(pixel_decoder\.encoder\.layers\.\d+)\.self_attn\.", r"\1.attentions.0."),
    (r"(transformer_decoder\.layers\.\d+)\.cross_attn\.", r"\1.attentions.0."),
    (r"(transformer_decoder\.layers\.\d+)\.self_attn\.", r"\1.attentions.1."),
    (r"(panoptic_head\..*layers\.\d+)\.ffn\.", r"\1.ffns.0."),
)
_END = r"\.(weight|bias)"
_SWIN = r"backbone\.stages\.(\d+)\.blocks\.(\d+)\."
_BLOCK = rf"{P}.encoder.encoder.layers.\1.blocks.\2."
_DEFORM = r"panoptic_head\.pixel_decoder\.encoder\.layers\.(\d+)\."
_DEFORM_TO = rf"{P}.decoder.encoder.layers.\1."
_LAYER = r"panoptic_head\.transformer_decoder\.layers\.(\d+)\."
_LAYER_TO = rf"{T}.decoder.layers.\1."
_PIXEL = r"panoptic_head\.pixel_decoder\."

# The tensor of three projections in one, which transformers has apart; the name of each is put in place of {}.
QKV = ("query", "key", "value")
_SELF_QKV = re.compile(_LAYER + r"attentions\.1\.attn\.in_proj_(weight|bias)")
_RULES: tuple[tuple[str, str], ...] = (
    (r"backbone\.patch_embed\.projection" + _END, rf"{P}.encoder.embeddings.patch_embeddings.projection.\1"),
    (r"backbone\.patch_embed\.norm" + _END, rf"{P}.encoder.embeddings.norm.\1"),
    (_SWIN + "norm1" + _END, _BLOCK + r"layernorm_before.\3"),
    (_SWIN + "norm2" + _END, _BLOCK + r"layernorm_after.\3"),
    (
        _SWIN + r"attn\.w_msa\.relative_position_bias_table",
        _BLOCK + "attention.self.relative_position_bias_table",
    ),
    (_SWIN + r"attn\.w_msa\.qkv" + _END, _BLOCK + r"attention.self.{}.\3"),
    (_SWIN + r"attn\.w_msa\.proj" + _END, _BLOCK + r"attention.output.dense.\3"),
    (_SWIN + r"ffn\.layers\.0\.0" + _END, _BLOCK + r"intermediate.dense.\3"),
    (_SWIN + r"ffn\.layers\.1" + _END, _BLOCK + r"output.dense.\3"),
    (
        r"backbone\.stages\.(\d+)\.downsample\.(norm|reduction)" + _END,
        rf"{P}.encoder.encoder.layers.\1.downsample.\2.\3",
    ),
    (_PIXEL + r"input_convs\.(\d+)\.conv" + _END, rf"{P}.decoder.input_projections.\1.0.\2"),
    (_PIXEL + r"input_convs\.(\d+)\.gn" + _END, rf"{P}.decoder.input_projections.\1.1.\2"),
    (
        _DEFORM + r"attentions\.0\.(sampling_offsets|attention_weights|value_proj|output_proj)" + _END,
        _DEFORM_TO + r"self_attn.\2.\3",
    ),
    (_DEFORM + r"ffns\.0\.layers\.0\.0" + _END, _DEFORM_TO + r"fc1.\2"),
    (_DEFORM + r"ffns\.0\.layers\.1" + _END, _DEFORM_TO + r"fc2.\2"),
    (_DEFORM + r"norms\.0" + _END, _DEFORM_TO + r"self_attn_layer_norm.\2"),
    (_DEFORM + r"norms\.1" + _END, _DEFORM_TO + r"final_layer_norm.\2"),
    (_PIXEL + r"level_encoding\.weight", rf"{P}.decoder.level_embed"),
    (_PIXEL + r"mask_feature" + _END, rf"{P}.decoder.mask_projection.\1"),
    (_LAYER + r"attentions\.0\.attn\.(in_proj_weight|in_proj_bias|out_proj\.weight|out_proj\.bias)", _LAYER_TO + r"cross_attn.\2"),
    (_LAYER + r"attentions\.1\.attn\.in_proj_(weight|bias)", _LAYER_TO + r"self_attn.{}_proj.\2"),
    (_LAYER + r"attentions\.1\.attn\.out_proj" + _END, _LAYER_TO + r"self_attn.out_proj.\2"),
    (_LAYER + r"norms\.0" + _END, _LAYER_TO + r"cross_attn_layer_norm.\2"),
    (_LAYER + r"norms\.1" + _END, _LAYER_TO + r"self_attn_layer_norm.\2"),
    (_LAYER + r"norms\.2" + _END, _LAYER_TO + r"final_layer_norm.\2"),
    (_LAYER + r"ffns\.0\.layers\.0\.0" + _END, _LAYER_TO + r"fc1.\2"),
    (_LAYER + r"ffns\.0\.layers\.1" + _END, _LAYER_TO + r"fc2.\2"),
    (r"panoptic_head\.transformer_decoder\.post_norm" + _END, rf"{T}.decoder.layernorm.\1"),
    (r"panoptic_head\.query_embed\.weight", rf"{T}.queries_embedder.weight"),
    (r"panoptic_head\.query_feat\.weight", rf"{T}.queries_features.weight"),
    (r"panoptic_head\.level_embed\.weight", rf"{T}.level_embed.weight"),
    (r"panoptic_head\.cls_embed" + _END, r"class_predictor.\1"),
)  # fmt: skip
# Counted from one in transformers (adapter_1), or in steps of two in mmdet (mask_embed.0, .2, .4).
_COUNTED: tuple[tuple[str, str, Any], ...] = (
    (r"backbone\.norm(\d+)" + _END, P + ".encoder.hidden_states_norms.stage{}.{}", lambda n: n + 1),
    (_PIXEL + r"lateral_convs\.(\d+)\.conv" + _END, P + ".decoder.adapter_{}.0.{}", lambda n: n + 1),
    (_PIXEL + r"lateral_convs\.(\d+)\.gn" + _END, P + ".decoder.adapter_{}.1.{}", lambda n: n + 1),
    (_PIXEL + r"output_convs\.(\d+)\.conv" + _END, P + ".decoder.layer_{}.0.{}", lambda n: n + 1),
    (_PIXEL + r"output_convs\.(\d+)\.gn" + _END, P + ".decoder.layer_{}.1.{}", lambda n: n + 1),
    (
        r"panoptic_head\.mask_embed\.(\d+)" + _END,
        T + ".decoder.mask_predictor.mask_embedder.{}.0.{}",
        lambda n: n // 2,
    ),
)


def old_name(name: str) -> str:
    """A tensor's name in mmdet 2.x, of either generation's."""
    for pattern, replacement in _LATER:
        name = re.sub(pattern, replacement, name)
    return name


def hub_name(name: str) -> tuple[str, tuple[str, ...]] | None:
    """A tensor's name in transformers, of that in mmdet 2.x; None where it is no tensor of a Mask2Former.

    Returns:
        The name, and what stands in it in place of `{}` for each third of the tensor; no thirds where it is one tensor.
    """
    for pattern, replacement in _RULES:
        if match := re.fullmatch(pattern, name):
            thirds = QKV if ".self.{}" in replacement else ("q", "k", "v") if "{}" in replacement else ()
            return match.expand(replacement), thirds
    for pattern, replacement, count in _COUNTED:
        if match := re.fullmatch(pattern, name):
            return replacement.format(count(int(match[1])), match[2]), ()
    return None


def is_index(name: str) -> bool:
    """Whether it is a table that follows from the window size, which transformers computes itself."""
    return name.endswith(".relative_position_index")


def is_merging(name: str) -> bool:
    """Whether it is a tensor of Swin's patch merging, whose columns the two libraries order differently."""
    return re.fullmatch(r"backbone\.stages\.\d+\.downsample\.(norm|reduction)" + _END, name) is not None


def hub_config(shapes: Mapping[str, tuple[int, ...]], classes: Mapping[int, str] | None) -> dict[str, Any]:
    """transformers' config of a model with these tensors.

    Args:
        shapes: by the names of mmdet 2.x.
        classes: the name of each class; None for numbers.

    Raises:
        InputError: a tensor is missing that every Mask2Former with a Swin has.
    """

    def size(name: str, axis: int = 0) -> int:
        shape = shapes.get(name, ())
        if len(shape) <= axis:
            raise InputError(
                f"no Mask2Former with a Swin backbone: the tensor {name} is missing",
                hint="the official detector is mmdet's mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco",
            )
        return shape[axis]

    def count(pattern: str) -> int:
        found = {int(match[1]) for name in shapes if (match := re.match(pattern, name))}
        return len(found)

    head, pixel = "panoptic_head", "panoptic_head.pixel_decoder"
    first = "backbone.stages.{}.blocks.0"
    stages = count(r"backbone\.stages\.(\d+)\.")
    table = "backbone.stages.{}.blocks.0.attn.w_msa.relative_position_bias_table"
    width = size("backbone.patch_embed.projection.weight")
    labels = size(f"{head}.cls_embed.weight") - 1
    names = (
        classes
        if classes is not None and len(classes) == labels
        else {n: f"class {n}" for n in range(labels)}
    )
    return {
        "architectures": ["Mask2FormerForUniversalSegmentation"],
        "model_type": "mask2former",
        "backbone_config": {
            "model_type": "swin",
            "patch_size": size("backbone.patch_embed.projection.weight", 2),
            "embed_dim": width,
            "depths": [count(rf"backbone\.stages\.{n}\.blocks\.(\d+)\.") for n in range(stages)],
            "num_heads": [size(table.format(n), 1) for n in range(stages)],
            "window_size": (isqrt(size(table.format(0))) + 1) // 2,
            "mlp_ratio": size(f"{first.format(0)}.ffn.layers.0.0.weight") / width,
            "drop_path_rate": 0.3,
            "out_features": [f"stage{n + 1}" for n in range(stages)],
        },
        "feature_size": size(f"{pixel}.input_convs.0.conv.weight"),
        "mask_feature_size": size(f"{pixel}.mask_feature.weight"),
        "hidden_dim": size(f"{head}.query_feat.weight", 1),
        "encoder_feedforward_dim": size(f"{pixel}.encoder.layers.0.ffns.0.layers.0.0.weight"),
        "encoder_layers": count(r"panoptic_head\.pixel_decoder\.encoder\.layers\.(\d+)\."),
        # transformers counts the prediction before the first layer.
        "decoder_layers": count(r"panoptic_head\.transformer_decoder\.layers\.(\d+)\.") + 1,
        "dim_feedforward": size(f"{head}.transformer_decoder.layers.0.ffns.0.layers.0.0.weight"),
        # An offset of two numbers for each head, of three levels and four points.
        "num_attention_heads": size(f"{pixel}.encoder.layers.0.attentions.0.sampling_offsets.weight") // 24,
        "num_queries": size(f"{head}.query_feat.weight"),
        "dropout": 0.0,
        "pre_norm": False,
        "common_stride": 4,
        "feature_strides": [4, 8, 16, 32],
        "id2label": {str(number): name for number, name in names.items()},
        "label2id": {name: number for number, name in names.items()},
    }
