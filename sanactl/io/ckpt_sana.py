"""What a SANA checkpoint holds: the tensors that follow from a `SanaTransformer2DModel` config, and their cost.

Source: diffusers `models/transformers/sana_transformer.py`. A test holds `expected_tensors` against the real class.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sanactl.errors import InputError

__all__ = [
    "BLOCK",
    "CONFIG_DEFAULTS",
    "block_shapes",
    "check_config",
    "check_tensors",
    "expected_tensors",
    "forward_flops",
    "guess_kind",
    "outer_shapes",
]

BLOCK = re.compile(r"^transformer_blocks\.(0|[1-9][0-9]*)\.(.+)$")
Shape = tuple[int, ...]

CONFIG_DEFAULTS: Mapping[str, Any] = {
    "in_channels": 32, "out_channels": 32, "num_attention_heads": 70, "attention_head_dim": 32, "num_layers": 20,
    "num_cross_attention_heads": 20, "cross_attention_head_dim": 112, "cross_attention_dim": 2240,
    "caption_channels": 2304, "mlp_ratio": 2.5, "dropout": 0.0, "attention_bias": False, "sample_size": 32,
    "patch_size": 1, "norm_elementwise_affine": False, "norm_eps": 1e-6, "interpolation_scale": None,
    "guidance_embeds": False, "guidance_embeds_scale": 0.1, "qk_norm": None, "timestep_scale": 1.0,
}  # fmt: skip

_SIZES = (
    "in_channels", "num_attention_heads", "attention_head_dim", "num_layers", "num_cross_attention_heads",
    "cross_attention_head_dim", "cross_attention_dim", "caption_channels", "sample_size", "patch_size",
)  # fmt: skip
# qk_norm of diffusers' Attention: (has weights, has biases, one weight a channel of all heads rather than of one)
_QK_NORMS: Mapping[str | None, tuple[bool, bool, bool]] = {
    None: (False, False, False),
    "l2": (False, False, False),
    "fp32_layer_norm": (False, False, False),
    "rms_norm": (True, False, False),
    "layer_norm": (True, True, False),
    "rms_norm_across_heads": (True, False, True),
    "layer_norm_across_heads": (True, True, True),
}


def check_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check that a config describes a SANA transformer.

    Args:
        config: of a `SanaTransformer2DModel`, as diffusers writes it; missing keys take the class's defaults.
        where: the file to name in an error.

    Returns:
        the config with every key of `CONFIG_DEFAULTS` present. Unknown keys are kept.

    Raises:
        InputError: another class's config, or an impossible value.
    """
    name = config.get("_class_name")
    if name not in (None, "SanaTransformer2DModel"):
        raise InputError(
            f"{where} is a {name}, not a SanaTransformer2DModel", hint="name a SANA text-to-image checkpoint"
        )
    if name is None and "num_cross_attention_heads" not in config:
        raise InputError(
            f"{where} is no SanaTransformer2DModel config: it has neither _class_name nor SANA's settings"
        )
    full = {**CONFIG_DEFAULTS, **config}
    for key in _SIZES:
        if type(full[key]) is not int or not 0 < full[key] < 1 << 31:
            raise InputError(f"{where}: {key} is {full[key]!r}, which is no positive whole number")
    ratio = full["mlp_ratio"]
    if type(ratio) not in (int, float) or not 0 < ratio < 1 << 16:
        raise InputError(f"{where}: mlp_ratio is {ratio!r}, which is no positive number")
    if full["out_channels"] is not None and (
        type(full["out_channels"]) is not int or full["out_channels"] < 0
    ):
        raise InputError(f"{where}: out_channels is {full['out_channels']!r}")
    if not isinstance(full["qk_norm"], str | None) or full["qk_norm"] not in _QK_NORMS:
        raise InputError(f"{where}: qk_norm {full['qk_norm']!r} is none of {', '.join(map(str, _QK_NORMS))}")
    return full


def block_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Shapes of one block's tensors, named within the block, in the order of the class's state dict."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    cross_width = config["num_cross_attention_heads"] * config["cross_attention_head_dim"]
    hidden = int(config["mlp_ratio"] * width)
    weights, biases, across = _QK_NORMS[config["qk_norm"]]
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
    """Check a file's tensors against its config: every block complete, numbered without a gap, no stranger.

    Raises:
        InputError: names the first tensor that is missing, unexpected or of another shape.
    """
    expected = expected_tensors(config) if config["num_layers"] <= 100_000 else {}
    if not shapes.keys() & expected.keys():
        raise InputError(f"{where} is not a SANA checkpoint: {guess_kind(shapes)}")
    blocks = {int(match[1]) for match in map(BLOCK.match, shapes) if match}
    if len(blocks) != config["num_layers"]:
        raise InputError(
            f"{where} holds {len(blocks)} blocks and its config says num_layers {config['num_layers']}"
        )
    for name, shape in expected.items():
        if name not in shapes:
            raise InputError(f"{where} lacks the tensor {name}")
        if shapes[name] != shape:
            raise InputError(f"{where}: {name} has the shape {shapes[name]} where its config needs {shape}")
    for name in shapes:
        if name not in expected:
            raise InputError(f"{where} holds the unexpected tensor {name}")


# What a foreign file's tensor names give away; the first pattern that is found names it.
_KINDS: tuple[tuple[str, str], ...] = (
    (r"lora_(A|B|down|up)\b|\.lora\.", "it seems to be a LoRA adapter"),
    (r"^(model\.diffusion_model\.)?blocks\.0\.cross_attn\.kv_linear\.", "it holds SANA's native layout; sanactl convert reads it"),
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


def guess_kind(names: Iterable[str]) -> str:
    """One clause on what a file with these tensor names seems to be."""
    names = list(names)
    if not names:
        return "it holds no tensors"
    for pattern, kind in _KINDS:
        if any(re.search(pattern, name) for name in names):
            return kind
    return f"its tensors look like {names[0]}"


def forward_flops(config: Mapping[str, Any], *, tokens: int | None = None, text_tokens: int = 300) -> int:
    """Floating-point operations of one forward pass of one image (a multiply-add counts as two).

    Linear self-attention costs are those of its two d x d products (SANA, section 2.2), so the count is linear in the
    image tokens. Normalisations, activations and the time embedding's nonlinearities are left out (below 1 %).

    Args:
        config: a checked config.
        tokens: image tokens; default (sample_size / patch_size)^2, the resolution the checkpoint was made for.
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
