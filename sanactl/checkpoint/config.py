"""Checking the config of a `SanaTransformer2DModel`: each setting has the right type and a possible value.

Source: diffusers `models/transformers/sana_transformer.py`. A test compares the fields with the real class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from sanactl.errors import InputError
from sanactl.files.json_values import brief, shown

__all__ = ["CONFIG_DEFAULTS", "MAX_BLOCKS", "QK_NORMS", "SanaConfig", "check_config"]

# The deepest published SANA has 60 blocks. At this limit, work on each block still takes less than a second.
MAX_BLOCKS = 4096
_MAX_SIZE = 1 << 24  # of a width, a number of heads, of channels or of latents a side
_MAX_FACTOR = 1e6  # of a setting that is used as a factor

# qk_norm of diffusers' Attention: (has weights, has biases, one weight a channel of all heads rather than of one)
QK_NORMS: Mapping[str | None, tuple[bool, bool, bool]] = {
    None: (False, False, False),
    "l2": (False, False, False),
    "fp32_layer_norm": (False, False, False),
    "rms_norm": (True, False, False),
    "layer_norm": (True, True, False),
    "rms_norm_across_heads": (True, False, True),
    "layer_norm_across_heads": (True, True, True),
}


@dataclass(frozen=True, eq=False)
class SanaConfig(Mapping[str, Any]):
    """Settings of a `SanaTransformer2DModel`, with the class's names and defaults; see `check_config`.

    It is also the mapping that diffusers writes to config.json, without `_class_name`. `other` has the settings that the
    class does not know; they are kept.
    """

    in_channels: int = 32
    out_channels: int | None = 32
    num_attention_heads: int = 70
    attention_head_dim: int = 32
    num_layers: int = 20
    num_cross_attention_heads: int = 20
    cross_attention_head_dim: int = 112
    cross_attention_dim: int = 2240
    caption_channels: int = 2304
    mlp_ratio: float = 2.5
    dropout: float = 0.0
    attention_bias: bool = False
    sample_size: int = 32
    patch_size: int = 1
    norm_elementwise_affine: bool = False
    norm_eps: float = 1e-6
    interpolation_scale: float | None = None
    guidance_embeds: bool = False
    guidance_embeds_scale: float = 0.1
    qk_norm: str | None = None
    timestep_scale: float = 1.0
    other: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key) if key in CONFIG_DEFAULTS else self.other[key]

    def __iter__(self) -> Iterator[str]:
        yield from CONFIG_DEFAULTS
        yield from self.other

    def __len__(self) -> int:
        return len(CONFIG_DEFAULTS) + len(self.other)

    @property
    def width(self) -> int:
        """Channels of the hidden states."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def cross_width(self) -> int:
        """Channels of all heads of cross-attention."""
        return self.num_cross_attention_heads * self.cross_attention_head_dim


CONFIG_DEFAULTS: Mapping[str, Any] = {f.name: f.default for f in fields(SanaConfig) if f.name != "other"}

_SIZES = (
    "in_channels", "num_attention_heads", "attention_head_dim", "num_cross_attention_heads", "cross_attention_head_dim",
    "cross_attention_dim", "caption_channels", "sample_size", "patch_size",
)  # fmt: skip
_SWITCHES = ("attention_bias", "norm_elementwise_affine", "guidance_embeds")
# (lowest, highest) of the settings that are floating-point numbers
_NUMBERS: Mapping[str, tuple[float, float]] = {
    "mlp_ratio": (1e-6, 65_536.0),
    "dropout": (0.0, 1.0),
    "norm_eps": (0.0, 1.0),
    "interpolation_scale": (1e-6, _MAX_FACTOR),
    "guidance_embeds_scale": (-_MAX_FACTOR, _MAX_FACTOR),
    "timestep_scale": (-_MAX_FACTOR, _MAX_FACTOR),
}
# Models of the same family that sanactl does not support.
_RELATIVES = {
    "SanaVideoTransformer3DModel": "SANA-Video",
    "SanaControlNetModel": "a ControlNet of SANA",
    "SanaWMTransformer3DModel": "SANA's world model",
}


def check_config(config: Mapping[str, Any], where: str) -> SanaConfig:
    """Check that a config describes a SANA transformer.

    Args:
        config: of a `SanaTransformer2DModel`, as diffusers writes it; missing keys take the class's defaults.
        where: the file to name in an error.

    Returns:
        the config, complete. Keys that the class does not know are kept in `other`.

    Raises:
        InputError: it is another class's config, or has an impossible value.
    """
    if isinstance(config, SanaConfig):
        return config
    name = config.get("_class_name")
    if isinstance(name, str) and name in _RELATIVES:
        raise InputError(
            f"{where} is {_RELATIVES[name]} ({name}), which sanactl does not work on",
            hint="name a SANA text-to-image checkpoint (SanaTransformer2DModel)",
        )
    if name not in (None, "SanaTransformer2DModel"):
        what = shown(name) if isinstance(name, str) else brief(name)
        raise InputError(
            f"{where} is a {what}, not a SanaTransformer2DModel", hint="name a SANA text-to-image checkpoint"
        )
    if name is None and "num_cross_attention_heads" not in config:
        raise InputError(
            f"{where} is no SanaTransformer2DModel config: it has neither _class_name nor SANA's settings"
        )
    full = {**CONFIG_DEFAULTS, **config}
    for key in _SIZES:
        _whole(full[key], key, where, _MAX_SIZE)
    _whole(full["num_layers"], "num_layers", where, MAX_BLOCKS)
    out = full["out_channels"]
    if out is not None and (type(out) is not int or not 0 <= out <= _MAX_SIZE):
        raise InputError(f"{where}: out_channels is {brief(out)}, which is no number of channels")
    for key in _SWITCHES:
        if type(full[key]) is not bool:
            raise InputError(f"{where}: {key} is {brief(full[key])}, neither true nor false")
    for key, (low, high) in _NUMBERS.items():
        if full[key] is None and key == "interpolation_scale":
            continue
        if type(full[key]) not in (int, float) or not low <= full[key] <= high:
            raise InputError(f"{where}: {key} is {brief(full[key])}, no number from {low:g} to {high:g}")
    if not isinstance(full["qk_norm"], str | None) or full["qk_norm"] not in QK_NORMS:
        raise InputError(
            f"{where}: qk_norm {brief(full['qk_norm'])} is none of {', '.join(map(str, QK_NORMS))}"
        )
    return SanaConfig(
        **{key: full[key] for key in CONFIG_DEFAULTS},
        other={k: v for k, v in full.items() if k not in CONFIG_DEFAULTS and k != "_class_name"},
    )


def _whole(value: Any, key: str, where: str, most: int) -> None:
    if type(value) is not int or value < 1:
        raise InputError(f"{where}: {key} is {brief(value)}, which is no positive whole number")
    if value > most:
        raise InputError(f"{where}: {key} is {brief(value)}; sanactl takes at most {most:,}")
