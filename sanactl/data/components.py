"""Checking that encoded data were made with a checkpoint's own autoencoder and text encoder."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from sanactl.checkpoint.components import cached_component
from sanactl.checkpoint.open import Checkpoint
from sanactl.errors import InputError
from sanactl.files.content import files_digest, json_digest

__all__ = ["ENCODERS", "component_identity", "differing"]

ENCODERS = ("vae", "text_encoder", "tokenizer")
# What a component computes follows from these of its files; its config.json also has versions and paths.
_DATA = (".safetensors", ".bin", ".model", "tokenizer.json")


def component_identity(checkpoint: Checkpoint, part: str) -> dict[str, str]:
    """What a component is known by.

    Args:
        checkpoint: it names the component.
        part: one of `ENCODERS`.

    Returns:
        {"source", "subfolder", "revision", "digest"}, those that are known; the digest is that of its weights (for an
        autoencoder, its scale too), and missing where its files are not on this machine.

    Raises:
        InputError: the checkpoint names none.
    """
    entry = checkpoint.components.get(part)
    if entry is None:
        raise InputError(
            f"{checkpoint.path}: names no {part}",
            hint="--components FOLDER|HUB-ID names the pipeline that it belongs to",
        )
    known = {key: str(entry[key]) for key in ("source", "subfolder", "revision") if entry.get(key)}
    folder = cached_component(checkpoint, entry)
    if folder is not None:
        files = sorted(f for f in folder.iterdir() if f.name.endswith(_DATA) and f.is_file())
        if files:
            known["digest"] = files_digest(files, _scale(folder))
    return known


def differing(a: dict[str, str], b: dict[str, str]) -> bool:
    """Whether two identities are of different components: by digest where both have one, else by name."""
    if a.get("digest") and b.get("digest"):
        return a["digest"] != b["digest"]
    return any(a.get(key) != b.get(key) for key in ("source", "subfolder", "revision"))


def _scale(folder: Path) -> str:
    """The factor that latents are multiplied by, of an autoencoder's config; "" for others."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("scaling_factor", ""))
    return ""


def settings_digest(settings: dict[str, Any]) -> str:
    """A fingerprint of settings, the same for any order of their keys."""
    return json_digest(settings)[:32]
