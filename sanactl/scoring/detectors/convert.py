"""mmdet's Mask2Former, the detector of GenEval's official scorer, as a folder that transformers loads."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError
from sanactl.files.json_values import shown
from sanactl.files.regular import open_regular
from sanactl.scoring.detectors.mmdet_names import hub_config, hub_name, is_index, is_merging, old_name

if TYPE_CHECKING:
    import torch

__all__ = ["OFFICIAL", "convert_detector", "convert_tensors", "in_hub_order"]

# The official scorer's checkpoint begins its sha256 so: mmdet 2.x's file, and 3.x's with the later names.
OFFICIAL = ("743b7d99", "c9d0c4f2")
# Of transformers' model; they carry no weights of the detector: an unused norm, and the loss's class weights.
WITHOUT_WEIGHTS = (
    r"model\.pixel_level_module\.encoder\.(swin\.)?layernorm\.(weight|bias)|criterion\.empty_weight"
)


def convert_detector(source: Path, folder: Path) -> dict[str, Any]:
    """Writes a checkpoint of mmdet's Mask2Former into a folder that transformers loads, and loads it once.

    Args:
        source: mmdet's .pth, of 2.x or 3.x.
        folder: an existing, empty folder.

    Returns:
        {"sha256", "tensors": number of tensors written, "official": whether the official scorer uses this file}.

    Raises:
        InputError: the file cannot be read, is not what its name says, or is no Mask2Former with a Swin backbone.
    """
    from safetensors.torch import save_file

    from sanactl.model.guard import reading
    from sanactl.scoring.detectors.mask2former_pixels import OFFICIAL_FIT

    sha256 = _sha256(source)
    named = re.search(r"[-_]([0-9a-f]{8})\.pth$", source.name)
    if named is not None and not sha256.startswith(named[1]):
        raise InputError(
            f"{source}: its sha256 begins with {sha256[:8]} and not as its name says",
            hint="download it again",
        )
    tensors = {old_name(name): tensor for name, tensor in _read(source).items()}
    labels = tensors.get("panoptic_head.cls_embed.weight")
    config = hub_config({n: tuple(t.shape) for n, t in tensors.items()}, _classes(labels))
    official = sha256.startswith(OFFICIAL)
    config["sanactl"] = {"source": source.name, "sha256": sha256, "official": official}
    converted = convert_tensors(tensors, str(source))
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    size = {"longest_edge": OFFICIAL_FIT.long, "shortest_edge": OFFICIAL_FIT.short}
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"size": size}, indent=2) + "\n", encoding="utf-8"
    )
    save_file(converted, folder / "model.safetensors", {"format": "pt"})
    with reading(f"{source}, converted,"):
        _check(folder, str(source))
    return {"sha256": sha256, "tensors": len(converted), "official": official}


def convert_tensors(tensors: Mapping[str, torch.Tensor], where: str) -> dict[str, torch.Tensor]:
    """The tensors under transformers' names, float32, each with memory of its own.

    Args:
        tensors: by the names of mmdet 2.x.
        where: the file, for errors.

    Raises:
        InputError: a tensor is none of a Mask2Former's.
    """
    import torch

    converted: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if is_index(name):
            continue
        found = hub_name(name)
        if found is None:
            raise InputError(
                f"{where}: the tensor {shown(name)} is none of a Mask2Former with a Swin backbone",
                hint="the official detector is mmdet's mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco",
            )
        target, thirds = found
        value = tensor.detach().to(torch.float32)
        if is_merging(name):
            value = in_hub_order(value)
        if thirds:
            if value.shape[0] % 3:
                raise InputError(f"{where}: {shown(name)} of shape {tuple(value.shape)} has no three parts")
            for third, part in zip(thirds, value.chunk(3), strict=True):
                converted[target.format(third)] = part.clone()
        else:
            converted[target] = value.clone()
    return converted


def in_hub_order(value: torch.Tensor) -> torch.Tensor:
    """A tensor of Swin's patch merging with its columns in transformers' order.

    Each merges 2 x 2 patches of C channels. mmdet takes them as `nn.Unfold` gives them: channel by channel, the four
    patches row by row. transformers concatenates whole patches, column by column. The shapes are the same either way,
    and a model in the wrong order detects badly without any error.

    Args:
        value: reduction.weight, [out, 4 C], or norm's weight or bias, [4 C].
    """
    rows = value.reshape(-1, value.shape[-1])
    out, channels = rows.shape[0], rows.shape[1] // 4
    patches = rows.reshape(out, channels, 4)[:, :, [0, 2, 1, 3]]
    return patches.transpose(1, 2).reshape(value.shape).contiguous()


def _classes(head: torch.Tensor | None) -> dict[int, str] | None:
    from sanactl.prompts.geneval.vocabulary import OBJECTS

    # One row more than classes: that of no object.
    return dict(enumerate(OBJECTS)) if head is not None and head.shape[0] == len(OBJECTS) + 1 else None


def _check(folder: Path, where: str) -> None:
    """Loads what was written, and holds that transformers finds exactly what it looks for."""
    import torch
    from transformers import Mask2FormerForUniversalSegmentation
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    _, info = Mask2FormerForUniversalSegmentation.from_pretrained(
        folder,
        output_loading_info=True,
        dtype=torch.float32,
        local_files_only=True,
        ignore_mismatched_sizes=True,  # the tensor is named below
    )
    strange = sorted(map(str, info.get("unexpected_keys") or ()))
    missing = [
        n for n in sorted(map(str, info.get("missing_keys") or ())) if not re.fullmatch(WITHOUT_WEIGHTS, n)
    ]
    wrong = sorted(str(key[0]) for key in info.get("mismatched_keys") or ())
    for what, names in (("lacks", missing), ("has besides", strange), ("has another shape for", wrong)):
        if names:
            more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
            raise InputError(f"{where} {what} {shown(names[0])}{more}")


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a .pth; nothing in it is run."""
    try:
        with open_regular(path) as file:
            zipped = file.read(4) == b"PK\x03\x04"
    except OSError as error:
        raise InputError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from error
    return _read_zip(path) if zipped else _read_old(path)


def _read_zip(path: Path) -> dict[str, torch.Tensor]:
    from sanactl.checkpoint.copy import Sources
    from sanactl.checkpoint.layouts.pth import read_pth
    from sanactl.checkpoint.spans import Stamp
    from sanactl.model.tensors import read_tensor

    sources = Sources({path: Stamp.of(os.stat(path))})
    try:
        tensors = {name: read_tensor(sources, ref) for name, ref in read_pth(path).tensors.items()}
        sources.check()
    finally:
        sources.close()
    return tensors


def _read_old(path: Path) -> dict[str, torch.Tensor]:
    """A file in torch's format before 1.6, in which mmdet 2.x published its checkpoints."""
    import torch

    from sanactl.model.guard import reading

    with reading(str(path)):
        root = torch.load(path, map_location="cpu", weights_only=True)
    state = root.get("state_dict", root) if isinstance(root, dict) else {}
    tensors = {str(n): t for n, t in state.items() if isinstance(t, torch.Tensor)}
    if not tensors:
        raise InputError(f"{path} holds no state dict of tensors")
    return tensors


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open_regular(path) as file:
            while part := file.read(1 << 22):
                digest.update(part)
    except OSError as error:
        raise InputError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from error
    return digest.hexdigest()
