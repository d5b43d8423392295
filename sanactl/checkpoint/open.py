"""Opening a SANA checkpoint of any layout as a table of tensors, without reading the tensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from sanactl.checkpoint.layouts.diffusers import open_located
from sanactl.checkpoint.layouts.registry import layout_of
from sanactl.checkpoint.locate import local_path, locate
from sanactl.checkpoint.table import Checkpoint, Stamp, TensorRef

__all__ = ["Checkpoint", "Stamp", "TensorRef", "open_checkpoint"]


def open_checkpoint(
    ref: str | os.PathLike[str],
    *,
    revision: str | None = None,
    variant: str | None = None,
    native: bool = False,
    config: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Open a checkpoint and check that it is a whole SANA transformer.

    Args:
        ref: a .st or .safetensors file that describes itself, a diffusers transformer folder (sharded or not), a
            pipeline folder, or a Hub id ("owner/name"; the cache first, then a download of the transformer alone,
            never with HF_HUB_OFFLINE=1).
        revision: branch, tag or commit of a Hub id.
        variant: of a folder that holds several ("bf16"); default the plain one, else bf16.
        native: also open files in other layouts (`sanactl.checkpoint.layouts`), such as the native one. Surgery can copy
            their bytes, but diffusers cannot load `Checkpoint.files`.
            config: used instead of the checkpoint's own config.

    Raises:
        InputError: it does not exist, is damaged, or is not a SANA checkpoint; names the file and the first fault.
    """
    if native and (layout := layout_of(path := local_path(os.fspath(ref)))) is not None:
        return layout.open(path, os.fspath(ref), config)
    return open_located(locate(ref, revision=revision, variant=variant), os.fspath(ref), config)
