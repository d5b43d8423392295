"""The writer of checkpoints: it executes any `Plan` by copying bytes from file to file.

It builds no model and does not import torch. The kernel copies bytes, or this process does, a megabyte at a time. Zeros
are holes, and values are computed a megabyte at a time. So memory use is small at any size, and the disk limits the speed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from sanactl.checkpoint.components import portable_components
from sanactl.checkpoint.copy import Sources
from sanactl.checkpoint.fill import OutputFile, create_file, fill_files, write_passing
from sanactl.checkpoint.layouts.registry import LAYOUTS
from sanactl.checkpoint.locate import INDEX_NAME, WEIGHTS_NAME
from sanactl.checkpoint.metadata import encode_metadata
from sanactl.checkpoint.plan import (
    Blend,
    Bytes,
    Normal,
    Ones,
    Plan,
    PlannedTensor,
    Summary,
    TensorSource,
    Zeros,
    copy_of,
)
from sanactl.checkpoint.table import Stamp
from sanactl.checkpoint.target import target_kind, target_layout
from sanactl.errors import InputError, SanactlError, UsageError
from sanactl.files.atomic import atomic_dir, atomic_path, check_target
from sanactl.files.json_values import brief
from sanactl.files.passing import PassingHashes
from sanactl.files.paths import user_path
from sanactl.files.progress import SILENT, Progress
from sanactl.files.threads import processors

__all__ = [
    "SHARD_SIZE",
    "Blend",
    "Bytes",
    "Normal",
    "Ones",
    "Plan",
    "PlannedTensor",
    "Summary",
    "TensorSource",
    "Zeros",
    "copy_of",
    "create_folder",
    "default_workers",
    "parse_size",
    "write_checkpoint",
    "write_checkpoints",
    "write_json",
]  # fmt: skip

SHARD_SIZE = 5_000_000_000  # bytes: "5GB", what diffusers' save_pretrained and the published checkpoints use
_MAX_SIZE = 1 << 62  # bytes; no file is larger
_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_OURS = re.compile(r"config\.json|diffusion_pytorch_model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


def parse_size(
    text: str | int, option: str = "--shard-size", hint: str = "write it like 5GB or 512MiB"
) -> int:
    """The number of bytes of "5GB", "512MiB", "100K" or a number; 1 KB is 1,000 bytes, as at Hugging Face.

    Args:
        option: that has the size, and `hint`, how it is written, for errors.

    Raises:
        UsageError: it is not a size, or it is zero.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(I?)B?\s*", str(text).upper())
    size = float(match[1]) * (1024 if match[3] else 1000) ** _UNITS[match[2]] if match else 0.0
    if not 1 <= size < _MAX_SIZE:
        raise UsageError(f"{option} {brief(text)} is not a size", hint=hint)
    return int(size)


def write_checkpoint(
    plan: Plan,
    target: str | os.PathLike[str],
    force: bool = False,
    *,
    shard_size: str | int = SHARD_SIZE,
    progress: Progress = SILENT,
    workers: int | None = None,
) -> Path:
    """Execute a plan; either the whole checkpoint appears or nothing.

    Args:
        plan: what to write.
        target: a .st or .safetensors file (one file that describes itself), a folder (config.json and one or several
            safetensors files, as diffusers writes them), or for a plan of another layout its file; see `target_kind`.
        force: replace what exists; a folder only if it contains nothing but a checkpoint.
        shard_size: largest shard of a folder in bytes ("5GB"); a single tensor is never split.
        progress: gets the number of bytes as they are written.
        workers: threads that copy and compute; default: the number of processors, at most 4.

    Returns:
        the target's path.

    Raises:
        OutputExistsError, UsageError: the target exists, or its name is not that of a checkpoint.
        InputError: a source changed since it was opened.
        SanactlError: there is no space or no permission.
    """
    (path,) = write_checkpoints(
        [(plan, target)], force, shard_size=shard_size, progress=progress, workers=workers
    )
    return path


def write_checkpoints(
    jobs: Sequence[tuple[Plan, str | os.PathLike[str]]],
    force: bool = False,
    *,
    shard_size: str | int = SHARD_SIZE,
    progress: Progress = SILENT,
    workers: int | None = None,
) -> list[Path]:
    """Execute several plans at once, such as one checkpoint pruned to several depths; see `write_checkpoint`.

    Each part of a source is read once and copied to every target that needs it. No target gets its name before all of
    them are written.
    """
    size = parse_size(shard_size)
    paths = [_checked(plan, target, force) for plan, target in jobs]
    if len({path.absolute() for path in paths}) < len(paths):
        raise UsageError("two checkpoints would have the same name", hint="name each one")
    _check_space(jobs, paths)
    progress.start(sum(plan.nbytes for plan, _ in jobs), f"writing {', '.join(path.name for path in paths)}")
    try:
        with ExitStack() as targets, ExitStack() as opened:
            sources = Sources(_stamps(plan for plan, _ in jobs))
            opened.callback(sources.close)
            files: list[OutputFile] = []
            passing = PassingHashes()
            for (plan, _), path in zip(jobs, paths, strict=True):
                kind = target_kind(path)
                metadata = _metadata(plan, path, kind)
                if layout := LAYOUTS.get(kind):
                    temporary = targets.enter_context(atomic_path(path, force))
                    write_passing(temporary, layout, plan.tensors, metadata, sources, progress)
                    continue
                if kind == "folder":
                    made = create_folder(targets.enter_context(atomic_dir(path, force)), plan, metadata, size)
                else:
                    temporary = targets.enter_context(atomic_path(path, force))
                    made = iter([create_file(temporary, plan.tensors, metadata)])
                for file in made:
                    opened.callback(file.close)
                    files.append(file)
            if files:
                fill_files(files, sources, progress, workers or default_workers(), passing)
            sources.check()
            opened.close()
    finally:
        progress.close()
    for plan, _ in jobs:
        plan.keep_hashes(passing)
    return paths


def create_folder(
    folder: Path, plan: Plan, metadata: Mapping[str, str], shard_size: int
) -> Iterator[OutputFile]:
    """Create a diffusers transformer folder: config.json, the shards' headers, and an index if there are several shards.

    Yields:
        the shards, without their data.
    """
    shards = _split(plan.tensors, shard_size)
    names = [WEIGHTS_NAME]
    if len(shards) > 1:
        stem, suffix = WEIGHTS_NAME.split(".")
        names = [f"{stem}-{number:05d}-of-{len(shards):05d}.{suffix}" for number in range(1, len(shards) + 1)]
        index = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        write_json(folder / INDEX_NAME, {"metadata": {"total_size": plan.nbytes}, "weight_map": index})
    write_json(folder / "config.json", {"_class_name": "SanaTransformer2DModel", **plan.config})
    for name, shard in zip(names, shards, strict=True):
        # the first shard has all metadata, the others only what diffusers needs in each file
        yield create_file(folder / name, shard, metadata if name == names[0] else {"format": "pt"})


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write a JSON file as diffusers writes its configs."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _split(tensors: Mapping[str, PlannedTensor], shard_size: int) -> list[dict[str, PlannedTensor]]:
    """Divide tensors, in order, into shards of at most `shard_size` bytes."""
    shards: list[dict[str, PlannedTensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        if shards[-1] and filled + tensor.nbytes > shard_size:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += tensor.nbytes
    return shards


def _checked(plan: Plan, target: str | os.PathLike[str], force: bool) -> Path:
    """The target's path, after checking that it can be written."""
    kind, path = target_kind(target), user_path(target)
    if target_layout(target) != plan.layout:
        raise UsageError(
            f"{path}: a {plan.layout} plan makes no {kind}", hint="sanactl convert changes the layout"
        )
    check_target(path, force)
    if force and kind == "folder" and path.is_dir():
        # --force must never delete a folder with other files
        strange = sorted(item.name for item in path.iterdir() if not _OURS.fullmatch(item.name))
        if strange:
            raise SanactlError(
                f"{path} holds more than a checkpoint ({strange[0]}) and is not replaced",
                hint="name another with -o",
            )
    return path


def _metadata(plan: Plan, path: Path, kind: str) -> dict[str, str]:
    beside = path.absolute() if kind == "folder" else path.absolute().parent
    return encode_metadata(
        plan.config,
        components=portable_components(plan.components, beside),
        sampling=plan.sampling,
        lineage=plan.signed_lineage(),
        extra=plan.extra,
    )


def _stamps(plans: Iterable[Plan]) -> dict[Path, Stamp]:
    """The state of every source when the plans were made; all plans must have seen the same state."""
    stamps: dict[Path, Stamp] = {}
    for plan in plans:
        for file, stamp in (plan.before.stamps if plan.before else {}).items():
            if stamps.setdefault(file, stamp) != stamp:
                raise InputError(f"{file} changed between two plans", hint="run the command again")
    return stamps


def _check_space(jobs: Sequence[tuple[Plan, str | os.PathLike[str]]], paths: Sequence[Path]) -> None:
    """Raise before the work if a disk is too small for the results."""
    needs: dict[int, tuple[Path, int]] = {}
    for (plan, _), path in zip(jobs, paths, strict=True):
        folder, summary = path.absolute().parent, plan.summary()
        device = os.stat(folder).st_dev
        before = needs.get(device, (folder, 0))[1]
        needs[device] = folder, before + summary.bytes_after - summary.bytes_zero
    for folder, need in needs.values():
        try:
            stat = os.statvfs(folder)
        except (OSError, AttributeError):
            continue
        free = stat.f_bavail * stat.f_frsize
        if need > free:
            raise SanactlError(
                f"no space left in {folder}: {need / 1e9:.1f} GB are to be written and {free / 1e9:.1f} GB are free",
                hint="free some, or name another disk with -o",
            )


def default_workers() -> int:
    """Threads of a write: one for each processor, at most four. Four are enough for any disk and take 60 MB of memory."""
    return min(4, processors())
