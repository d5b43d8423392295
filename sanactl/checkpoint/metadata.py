"""The safetensors header of a self-describing checkpoint: config, components, sampling defaults, lineage.

Values are strings, as safetensors requires. Structured values are JSON with sorted keys. No value contains a time or a
host name, so the same command gives the same bytes. docs/checkpoints.md lists the keys.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sanactl.checkpoint.decode import MAX_STEPS
from sanactl.files.paths import to_json
from sanactl.version import __version__

__all__ = [
    "compact_json",
    "encode_metadata",
    "lineage_entry",
]

_IMPLEMENTATION = "https://github.com/huggingface/diffusers"
_LATENT_PIXELS = 32  # image pixels a side of one latent of DC-AE f32, the autoencoder of every published SANA


def compact_json(value: Any) -> str:
    """JSON on one line with sorted keys: equal values give equal text."""
    return json.dumps(
        to_json(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )


def lineage_entry(
    command: str,
    arguments: Mapping[str, Any],
    *,
    parents: Sequence[Mapping[str, str]],
    blocks: int,
    seed: int | None = None,
) -> dict[str, Any]:
    """One step of a checkpoint's lineage.

    Args:
        command: the command's name ("grow").
        arguments: the settings that decide the result; not the paths of outputs.
        parents: {"name", "digest"} of each input checkpoint.
        blocks: number of transformer blocks of the result.
        seed: of its random numbers; None if there are none.
    """
    return {
        "command": command,
        "arguments": _plain(dict(arguments)),
        "version": __version__,
        "seed": seed,
        "parents": [dict(parent) for parent in parents],
        "blocks": blocks,
    }


def _plain(value: Any) -> Any:
    """The value as strict JSON: keys are text, and an infinity (a clip of inf means no clipping) becomes text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def encode_metadata(
    config: Mapping[str, Any],
    *,
    components: Mapping[str, Any] | None = None,
    sampling: Mapping[str, Any] | None = None,
    lineage: Sequence[Mapping[str, Any]] = (),
    extra: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The `__metadata__` of a checkpoint that sanactl writes.

    Args:
        config: of the `SanaTransformer2DModel`.
        components: text_encoder, tokenizer, vae, scheduler: each {"source": ..., "subfolder": ...}.
        sampling: default sampling settings.
        lineage: entries, oldest first; only the newest `MAX_STEPS` are written.
        extra: further strings, such as a parent's own modelspec keys; sanactl's own strings replace them.
    """
    full = {**dict(config), "_class_name": "SanaTransformer2DModel"}
    metadata = {
        key: value
        for key, value in (extra or {}).items()
        if not key.startswith("sanactl.") and key not in _STALE
    }
    metadata |= {
        "format": "pt",
        "config": compact_json(full),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "sana",
        "modelspec.implementation": _IMPLEMENTATION,
        "modelspec.title": (extra or {}).get("modelspec.title") or f"SANA, {full.get('num_layers')} blocks",
    }
    resolution = _resolution(full, sampling or {})
    if resolution:
        metadata["modelspec.resolution"] = resolution
    if components:
        metadata["sanactl.components"] = compact_json(components)
    if sampling:
        metadata["sanactl.sampling"] = compact_json(sampling)
    if lineage:
        metadata["sanactl.lineage"] = compact_json(list(lineage)[-MAX_STEPS:])
        parents = [str(parent.get("name")) for entry in lineage for parent in entry.get("parents", [])]
        if len(lineage[-1].get("parents", [])) > 1:
            metadata["modelspec.merged_from"] = ", ".join(parents)
    return dict(sorted(metadata.items()))


# keys that describe the bytes or the origin of one file, so a child must not inherit them
_STALE = frozenset(
    {"modelspec.hash_sha256", "modelspec.date", "modelspec.merged_from", "modelspec.resolution", "format"}
)


def _resolution(config: Mapping[str, Any], sampling: Mapping[str, Any]) -> str | None:
    width, height = sampling.get("width"), sampling.get("height")
    if width and height:
        return f"{width}x{height}"
    if config.get("in_channels") == 32 and config.get("sample_size"):
        side = config["sample_size"] * _LATENT_PIXELS
        return f"{side}x{side}"
    return None
