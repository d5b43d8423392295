"""The diffusers layout: safetensors files that describe themselves, and folders with a config.json and one or more shards."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sanactl.checkpoint.components import resolve_components
from sanactl.checkpoint.config import check_config
from sanactl.checkpoint.decode import decode_metadata
from sanactl.checkpoint.folder import Located
from sanactl.checkpoint.kinds import describe_kind, guess_kind
from sanactl.checkpoint.sana import check_tensors
from sanactl.checkpoint.spans import Stamp, TensorRef
from sanactl.checkpoint.table import Checkpoint
from sanactl.errors import InputError
from sanactl.files.safetensors import Header, read_header

__all__ = ["DIFFUSERS", "SAFETENSORS", "open_located"]

DIFFUSERS = "diffusers"
SAFETENSORS = (".st", ".safetensors")


def open_located(located: Located, where: str, config: Mapping[str, Any] | None = None) -> Checkpoint:
    """Open the files of a diffusers transformer and check that they are a whole SANA.

    Args:
        located: the files, and what was found beside them.
        where: what the user named.
        config: used in place of the one that the checkpoint carries.

    Raises:
        InputError: they are damaged, or no SANA checkpoint; names the file and the first fault.
    """
    stamps: dict[Path, Stamp] = {}
    headers: dict[Path, Header] = {}
    for path in located.files:
        headers[path] = read_header(path)
        stamps[path] = Stamp.of(os.stat(path))
    tensors = _merge(located, headers)
    metadata: dict[str, str] = {}
    for header in reversed(headers.values()):
        metadata |= header.metadata
    stored = decode_metadata(metadata, where)
    config = config or located.config or stored.config
    if config is None:
        names = list(tensors)
        if "caption_norm.weight" in tensors and guess_kind(names) is None:
            raise InputError(
                f"{where} holds SANA tensors but no config",
                hint="put its config.json beside it and name the folder",
            )
        raise InputError(f"{where} is not a SANA checkpoint: {describe_kind(names)}")
    full = check_config(config, where)
    check_tensors({name: tensor.shape for name, tensor in tensors.items()}, full, where)
    folder = located.path if located.path.is_dir() else located.path.parent
    return Checkpoint(
        ref=where,
        path=located.path,
        kind=located.kind,
        tensors=tensors,
        config=full,
        components=located.components or resolve_components(stored.components, folder),
        sampling=stored.sampling,
        lineage=stored.lineage,
        metadata=metadata,
        headers=tuple((path, header.data_start) for path, header in headers.items()),
        stamps=stamps,
        notes=located.notes,
    )


def _merge(located: Located, headers: Mapping[Path, Header]) -> dict[str, TensorRef]:
    """One table from all shards, compared with the index."""
    tensors: dict[str, TensorRef] = {}
    for path, header in headers.items():
        for name, info in header.tensors.items():
            if name in tensors:
                raise InputError(f"{path} holds {name}, which {tensors[name].file.name} holds too")
            if located.index is not None and located.index.get(name) != path.name:
                says = located.index.get(name, "nowhere")
                raise InputError(f"{path} holds {name}, which the index puts in {says}")
            tensors[name] = TensorRef(path, info.offset, info.nbytes, info.dtype, info.shape)
    for name, file in (located.index or {}).items():
        if name not in tensors:
            raise InputError(f"{located.path}: the index puts {name} in {file}, which does not hold it")
    return tensors
