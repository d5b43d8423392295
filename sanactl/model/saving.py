"""Saving a module as a self-describing checkpoint file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sanactl.checkpoint.components import portable_components
from sanactl.checkpoint.metadata import encode_metadata, lineage_entry
from sanactl.checkpoint.open import Checkpoint
from sanactl.files.atomic import atomic_path
from sanactl.files.safetensors import encode_header, placement, read_header
from sanactl.model.tensors import TORCH_DTYPES, read_tensors
from sanactl.optim.resharding import Whole, whole

__all__ = ["header_of", "rewrite_weights", "save_transformer", "write_tensors"]

_TRAINED = ("F32", "BF16", "F16")  # dtypes in which trained weights are kept
_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def header_of(
    parent: Checkpoint, folder: Path, *, command: str, arguments: Mapping[str, Any], seed: int | None = None
) -> dict[str, str]:
    """The header of a checkpoint with the same config that `command` made from `parent`.

    Args:
        parent: its config, components, sampling defaults and lineage are kept.
        folder: the folder of the file, for components with relative paths.
        command, arguments, seed: for the lineage.
    """
    entry = lineage_entry(
        command,
        arguments,
        parents=[{"name": parent.path.name, "digest": parent.digest}],
        blocks=parent.num_blocks,
        seed=seed,
    )
    return encode_metadata(
        parent.config,
        components=portable_components(parent.components, Path(os.path.abspath(folder))),
        sampling=parent.sampling,
        lineage=[*parent.lineage, entry],
        extra={
            k: v for k, v in parent.metadata.items() if k.startswith("modelspec.") and k != "modelspec.title"
        },
    )


def save_transformer(
    model: Any,
    parent: Checkpoint,
    target: Path | None,
    *,
    command: str,
    arguments: Mapping[str, Any],
    seed: int | None = None,
    dtype: torch.dtype | None = None,
    force: bool = False,
) -> None:
    """Write a trained transformer as a `.st` file, whole or not at all.

    Args:
        model: the `SanaTransformer2DModel`, or an object with its `state_dict`. If it is sharded, every process calls this.
        parent, command, arguments, seed: see `header_of`.
        target: None on a process that has a part of the model and does not write the file.
        dtype: of the tensors in the file; by default that of the parent's tensor of the same name.
    """
    tensors = {name: whole(tensor) for name, tensor in model.state_dict().items()}
    dtypes = {}
    for name in tensors:
        reference = parent.tensors.get(name)
        name_of = reference.dtype if reference and reference.dtype in _TRAINED else "F32"
        dtypes[name] = dtype or TORCH_DTYPES[name_of]
    if target is None:
        write_tensors(tensors, None, {}, dtypes)
        return
    metadata = header_of(parent, target.parent, command=command, arguments=arguments, seed=seed)
    with atomic_path(target, force=force) as temporary:
        write_tensors(tensors, temporary, metadata, dtypes)


def write_tensors(
    tensors: Mapping[str, torch.Tensor | Whole],
    path: Path | None,
    metadata: Mapping[str, str],
    dtypes: Mapping[str, torch.dtype] | None = None,
) -> None:
    """Write a safetensors file; the same tensors and metadata give the same bytes.

    The safetensors library's own writer puts the metadata in another order each time.

    Args:
        tensors: on any device; they are copied to the CPU one by one. Of those that are divided among processes, one is
            whole at a time.
        path: the file; overwritten if it exists. None on processes that only take part in collecting the tensors.
        metadata: the header's strings.
        dtypes: of the tensors in the file; their own where it names none.
    """
    kept = {name: (dtypes or {}).get(name, tensor.dtype) for name, tensor in tensors.items()}
    listed = sorted(tensors.items(), key=lambda item: placement(_NAMES[kept[item[0]]], item[1].shape))
    header, _ = encode_header(((n, _NAMES[kept[n]], tuple(t.shape)) for n, t in listed), metadata)
    with path.open("wb") if path is not None else contextlib.nullcontext() as file:
        if file is not None:
            file.write(header)
        for name, tensor in listed:
            found = tensor.read() if isinstance(tensor, Whole) else tensor
            if file is not None:
                flat = found.detach().to("cpu", kept[name]).contiguous().reshape(-1).view(torch.uint8)
                file.write(memoryview(flat.numpy()))


def rewrite_weights(folder: Path) -> None:
    """Write the safetensors files that another library saved in `folder` again, with `write_tensors`.

    The library's files are readable by their owner only, and their data are not aligned.
    """
    for file in sorted(folder.glob("*.safetensors")):
        metadata, tensors = read_header(file).metadata, read_tensors(file)
        file.unlink()
        write_tensors(tensors, file, metadata)
