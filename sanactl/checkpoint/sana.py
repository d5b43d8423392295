"""The tensors of a SANA checkpoint, as they follow from a `SanaTransformer2DModel` config, and the model's FLOPs.

Source: diffusers `models/transformers/sana_transformer.py`. A test compares `expected_tensors` with the real class.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from sanactl.checkpoint.config import CONFIG_DEFAULTS, QK_NORMS, check_config
from sanactl.checkpoint.kinds import describe_kind
from sanactl.errors import InputError
from sanactl.files.json_values import brief, shown

__all__ = [
    "BLOCK",
    "CONFIG_DEFAULTS",
    "block_shapes",
    "check_config",
    "check_tensors",
    "expected_tensors",
    "forward_flops",
    "outer_shapes",
]

BLOCK = re.compile(r"transformer_blocks\.(0|[1-9][0-9]{0,8})\.(.+)\Z")
Shape = tuple[int, ...]
_SCALE = re.compile(r"(^|[._])(scaled?|absmax|zero_point|quant_\w+)([._]|$)")


def block_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Shapes of one block's tensors, named within the block, in the order of the class's state dict."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    cross_width = config["num_cross_attention_heads"] * config["cross_attention_head_dim"]
    hidden = int(config["mlp_ratio"] * width)
    weights, biases, across = QK_NORMS[config["qk_norm"]]
    shapes: dict[str, Shape] = {"scale_shift_table": (6, width)}

    def norms(attention: str, head_dim: int, total: int) -> None:
        for norm in ("norm_q", "norm_k"):
            if weights:
                shapes[f"{attention}.{norm}.weight"] = (total if across else head_dim,)
            if biases:
                shapes[f"{attention}.{norm}.bias"] = (total if across else head_dim,)

    def linear(name: str, rows: int, columns: int, bias: bool) -> None:
        shapes[f"{name}.weight"] = (rows, columns)
        if bias:
            shapes[f"{name}.bias"] = (rows,)

    norms("attn1", config["attention_head_dim"], width)
    for projection in ("to_q", "to_k", "to_v"):
        linear(f"attn1.{projection}", width, width, config["attention_bias"])
    linear("attn1.to_out.0", width, width, True)
    if config["norm_elementwise_affine"]:
        shapes["norm2.weight"] = shapes["norm2.bias"] = (width,)
    norms("attn2", config["cross_attention_head_dim"], cross_width)
    linear("attn2.to_q", cross_width, width, True)
    for projection in ("to_k", "to_v"):
        linear(f"attn2.{projection}", cross_width, config["cross_attention_dim"], True)
    linear("attn2.to_out.0", width, cross_width, True)
    shapes["ff.conv_inverted.weight"] = (2 * hidden, width, 1, 1)
    shapes["ff.conv_inverted.bias"] = (2 * hidden,)
    shapes["ff.conv_depth.weight"] = (2 * hidden, 1, 3, 3)
    shapes["ff.conv_depth.bias"] = (2 * hidden,)
    shapes["ff.conv_point.weight"] = (width, hidden, 1, 1)
    return shapes


def outer_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Shapes of the tensors outside the blocks."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    patch, out = config["patch_size"], config["out_channels"] or config["in_channels"]
    shapes: dict[str, Shape] = {
        "scale_shift_table": (2, width),
        "patch_embed.proj.weight": (width, config["in_channels"], patch, patch),
        "patch_embed.proj.bias": (width,),
    }
    embedders = ["time_embed.emb.timestep_embedder"]
    if config["guidance_embeds"]:  # SANA-Sprint
        embedders = ["time_embed.timestep_embedder", "time_embed.guidance_embedder"]
    for embedder in embedders:
        shapes[f"{embedder}.linear_1.weight"] = (width, 256)
        shapes[f"{embedder}.linear_1.bias"] = (width,)
        shapes[f"{embedder}.linear_2.weight"] = (width, width)
        shapes[f"{embedder}.linear_2.bias"] = (width,)
    shapes["time_embed.linear.weight"] = (6 * width, width)
    shapes["time_embed.linear.bias"] = (6 * width,)
    shapes["caption_projection.linear_1.weight"] = (width, config["caption_channels"])
    shapes["caption_projection.linear_1.bias"] = (width,)
    shapes["caption_projection.linear_2.weight"] = (width, width)
    shapes["caption_projection.linear_2.bias"] = (width,)
    shapes["caption_norm.weight"] = (width,)
    shapes["proj_out.weight"] = (patch * patch * out, width)
    shapes["proj_out.bias"] = (patch * patch * out,)
    return shapes


def expected_tensors(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Every tensor of a checkpoint with this (checked) config, and its shape."""
    block = block_shapes(config)
    shapes = outer_shapes(config)
    for index in range(config["num_layers"]):
        shapes.update({f"transformer_blocks.{index}.{name}": shape for name, shape in block.items()})
    return shapes


def check_tensors(shapes: Mapping[str, Shape], config: Mapping[str, Any], where: str) -> None:
    """Check a file's tensors against its config: every block complete, numbered without a gap, no other tensors.

    Raises:
        InputError: names the first tensor that is missing, unexpected or of another shape.
    """
    if not shapes.keys() & (expected_tensors({**config, "num_layers": 1}).keys()):
        raise InputError(f"{where} is not a SANA checkpoint: {describe_kind(shapes)}")
    blocks = {int(match[1]) for match in map(BLOCK.match, shapes) if match}
    if len(blocks) != config["num_layers"]:
        raise InputError(
            f"{where} holds {len(blocks)} blocks and its config says num_layers {config['num_layers']}"
        )
    expected = expected_tensors(config)
    for name, shape in expected.items():
        if name not in shapes:
            raise InputError(f"{where} lacks the tensor {name}")
        if shapes[name] != shape:
            raise InputError(
                f"{where}: {name} has the shape {brief(shapes[name])} where its config needs {brief(shape)}"
            )
    for name in shapes:
        if name not in expected:
            hint = "scales of quantised weights are not applied" if _SCALE.search(name) else None
            raise InputError(f"{where} holds the unexpected tensor {shown(name)}", hint=hint)


def forward_flops(config: Mapping[str, Any], *, tokens: int | None = None, text_tokens: int = 300) -> int:
    """Floating-point operations of one forward pass of one image (a multiply-add counts as two).

    Linear self-attention counts its two d x d products (SANA, section 2.2), so the count is linear in the image tokens.
    Normalisations, activations and the time embedding's nonlinearities are left out (below 1 %).

    Args:
        config: a checked config.
        tokens: image tokens; default (sample_size / patch_size)^2, for the checkpoint's own resolution.
        text_tokens: of the caption (SANA's 300).
    """
    if tokens is None:
        tokens = (config["sample_size"] // config["patch_size"]) ** 2
    products = 0  # multiply-adds
    head_dim, cross_width = (
        config["attention_head_dim"],
        config["num_cross_attention_heads"] * config["cross_attention_head_dim"],
    )
    width = config["num_attention_heads"] * head_dim
    for name, shape in block_shapes(config).items():
        if not name.endswith(".weight") or len(shape) < 2:
            continue
        rows = text_tokens if name.startswith(("attn2.to_k", "attn2.to_v")) else tokens
        products += rows * math.prod(shape)
    products += 2 * tokens * width * (head_dim + 1)  # attn1: values x keys (and their sum), then x queries
    products += 2 * tokens * text_tokens * cross_width  # attn2: softmax attention
    products *= config["num_layers"]
    for name, shape in outer_shapes(config).items():
        if name.endswith(".weight") and len(shape) >= 2:
            rows = {"time_embed": 1, "caption_projection": text_tokens}.get(name.split(".")[0], tokens)
            products += rows * math.prod(shape)
    return 2 * products
