"""Components that the user names with `--components`, for a checkpoint of the transformer alone."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

from sanactl.checkpoint.builtin import BUILTIN_PREFIX, asset
from sanactl.checkpoint.components import COMPONENTS
from sanactl.checkpoint.config import SanaConfig
from sanactl.checkpoint.open import open_checkpoint
from sanactl.checkpoint.table import Checkpoint
from sanactl.errors import InputError, SanactlError, UsageError

__all__ = ["published_components", "with_components"]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# (width, native resolution in latents a side) of the released models: without QK norms; with QK norms or Sprint.
_SANA = {
    (1152, 16): "Sana_600M_512px_diffusers",
    (1152, 32): "Sana_600M_1024px_diffusers",
    (2240, 16): "Sana_1600M_512px_diffusers",
    (2240, 32): "Sana_1600M_1024px_BF16_diffusers",
}
_SPRINT = {1152: "Sana_Sprint_0.6B_1024px_diffusers", 2240: "Sana_Sprint_1.6B_1024px_diffusers"}
_SANA_1_5 = {20: "SANA1.5_1.6B_1024px_diffusers", 60: "SANA1.5_4.8B_1024px_diffusers"}


def published_components(config: SanaConfig) -> str | None:
    """The Hub id of the released pipeline whose components fit a transformer of this config, or None.

    Depth does not matter: a grown or pruned model keeps its components.
    """
    name: str | None
    if config.guidance_embeds:
        name = _SPRINT.get(config.width)
    elif config.qk_norm is not None:
        name = _SANA_1_5.get(config.num_layers, _SANA_1_5[60]) if config.width == 2240 else None
    else:
        name = _SANA.get((config.width, config.sample_size))
    return f"Efficient-Large-Model/{name}" if name else None


def with_components(checkpoint: Checkpoint, named: str) -> Checkpoint:
    """The checkpoint with the components of `named` instead of its own.

    Args:
        named: a pipeline folder or one that holds text_encoder, tokenizer, vae and scheduler; a checkpoint file that
            names its components; a Hub id; or `builtin:shapes`. Nothing is downloaded here.

    Raises:
        InputError: it does not exist, or has no such component.
        UsageError: it is not a name of any of these.
    """
    found, sampling = _found(named)
    return dataclasses.replace(
        checkpoint,
        components={**checkpoint.components, **found},
        # A transformer alone does not give the size of its images; the sampling settings of the components do.
        sampling=checkpoint.sampling or sampling,
        given=named,
    )


def _found(named: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The components and the sampling defaults that come with a name."""
    if named.startswith(BUILTIN_PREFIX):
        if named != f"{BUILTIN_PREFIX}shapes":
            raise UsageError(f"--components {named}: the only built-in world is {BUILTIN_PREFIX}shapes")
        base = open_checkpoint(asset("base.st"))
        return base.components, base.sampling
    path = Path(named)
    if path.is_dir():
        return _of_folder(path)
    if os.path.lexists(path):
        other = open_checkpoint(path, native=True)
        if not other.components:
            raise InputError(f"--components {named}: names no components itself")
        return other.components, other.sampling
    if named.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(named):
        raise InputError(f"--components {named}: there is no such folder, and it is no Hub id")
    return {part: {"source": named, "subfolder": part} for part in COMPONENTS}, {}


def _of_folder(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    parts = [part for part in COMPONENTS if (path / part).is_dir()]
    if not parts:
        raise InputError(
            f"--components {path}: holds no {', '.join(COMPONENTS[:-1])} or {COMPONENTS[-1]} folder",
            hint="name the folder of a whole pipeline",
        )
    sampling: dict[str, Any] = {}
    if (path / "transformer").is_dir():
        try:
            sampling = open_checkpoint(path).sampling
        except SanactlError:  # only its components are needed
            sampling = {}
    return {part: {"source": str(path.absolute()), "subfolder": part} for part in parts}, sampling
