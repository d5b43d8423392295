"""What the functions take - a checkpoint, prompts, records, a device, progress - in the forms that Python has for it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from sanactl.checkpoint.given import with_components
from sanactl.checkpoint.open import Checkpoint
from sanactl.checkpoint.open import open_checkpoint as open_any
from sanactl.errors import InputError, UsageError
from sanactl.files.progress import SILENT, Progress
from sanactl.records.prompt_tables import split_column
from sanactl.records.prompts import load_prompts
from sanactl.records.records import Record, check_record, stream_records
from sanactl.sampling.inputs import builtin_prompts, given_prompts, is_prompt

if TYPE_CHECKING:
    import torch

__all__ = [
    "CheckpointLike", "DeviceLike", "DtypeLike", "PathLike", "Prompts", "Records", "as_progress", "as_prompts",
    "as_records", "as_target", "check_seed", "device_name", "dtype_name", "open_checkpoint", "opened",
    "precision_name", "warn",
]  # fmt: skip

PathLike = Union[str, "os.PathLike[str]"]
CheckpointLike = Union[PathLike, Checkpoint]
Prompts = Union[PathLike, Iterable[Union[str, Mapping[str, Any]]]]
Records = Union[PathLike, Iterable[Mapping[str, Any]]]
if TYPE_CHECKING:
    DeviceLike = Union[str, torch.device]
    DtypeLike = Union[str, torch.dtype]
else:
    DeviceLike = DtypeLike = Any


def open_checkpoint(
    checkpoint: CheckpointLike,
    *,
    revision: str | None = None,
    variant: str | None = None,
    config: PathLike | Mapping[str, Any] | None = None,
    components: PathLike | None = None,
) -> Checkpoint:
    """Opens a checkpoint of any layout as a table of tensors. No tensor is read, and torch is not imported.

    Args:
        checkpoint: a .st or .safetensors file, a native .pth, a diffusers transformer or pipeline folder, or a Hub id
            ("owner/name"; the transformer is downloaded where it is not cached). An opened one is returned, with
            `components` put in if they are given.
        revision: branch, tag or commit of a Hub id.
        variant: of a folder that holds several ("fp16"); by default the plain one, else bf16.
        config: in place of the checkpoint's own: a config.json, or what stands in one.
        components: the pipeline (folder, Hub id or `builtin:shapes`) that text encoder, tokenizer, autoencoder and
            scheduler come from; by default those that the checkpoint names.

    Returns:
        the checkpoint: `num_blocks`, `num_parameters`, `nbytes` (bytes of all tensors), `dtypes`, `config`,
        `components`, `sampling`, `lineage`, `digest`, and `tensors` (name to file, offset, dtype and shape).

    Raises:
        InputError: it does not exist, is damaged, or is no SANA transformer.
        UsageError: `revision`, `variant` or `config` of a checkpoint that is open already.

    Source: docs/checkpoints.md; the class is diffusers' `SanaTransformer2DModel`.
    """
    if isinstance(checkpoint, Checkpoint):
        if any(value is not None for value in (revision, variant, config)):
            raise UsageError("revision, variant and config choose what is opened, and the checkpoint is open")
        found = checkpoint
    else:
        from sanactl.checkpoint.locate import read_json

        known = config if config is None or isinstance(config, Mapping) else read_json(Path(config))
        found = open_any(checkpoint, revision=revision, variant=variant, native=True, config=known)
    return with_components(found, os.fspath(components)) if components is not None else found


def opened(checkpoint: CheckpointLike, revision: str | None, components: PathLike | None) -> Checkpoint:
    """The checkpoint that a function works on; its notes are warnings."""
    found = open_checkpoint(checkpoint, revision=revision, components=components)
    for line in found.notes:
        warn(line)
    return found


def as_prompts(prompts: Prompts | None, *, default: str) -> list[Record]:
    """Prompt records from a list of texts or records, a file, a table's column, one text, or the name "shapes".

    Args:
        default: the built-in prompts that are taken for None.

    Raises:
        InputError: there is no such file, or something in it or in the list is no prompt.
    """
    if prompts is None:
        return builtin_prompts(default)
    if isinstance(prompts, str):
        if prompts == "shapes":
            return builtin_prompts("shapes")
        if is_prompt(prompts) and not os.path.lexists(split_column(prompts)[0]):
            return given_prompts([prompts], "prompts")
    if isinstance(prompts, str | os.PathLike):
        return load_prompts(Path(prompts))
    return given_prompts(list(prompts), "prompts")


def as_records(records: Records, kind: str, *, plain: bool = False) -> Iterator[Record]:
    """Records of a kind from a JSONL file, a folder of samples, or what is given, checked as they pass.

    Args:
        plain: whether a folder may be of images alone, in any layout.

    Raises:
        InputError: there is no such file, a record is bad, or there are none.
    """
    name = "records"
    found: Iterator[Record]
    if isinstance(records, str | os.PathLike):
        path, name = Path(records), os.fspath(records)
        if kind == "image" and path.is_dir():
            from sanactl.records.geneval_folder import is_geneval_folder, read_geneval_folder
            from sanactl.records.image_folder import read_image_folder

            alone = plain and not is_geneval_folder(path)
            found = read_image_folder(path) if alone else read_geneval_folder(path)
        else:
            found = stream_records(path, kinds=(kind,))
    else:
        every = (check_record(r, f"record {n}", kind) for n, r in enumerate(records, 1))
        found = (record for record in every if record["kind"] == kind)
    return _some(found, f"{name}: no {kind} record in it")


def _some(records: Iterator[Record], message: str) -> Iterator[Record]:
    """The records; an error with this message after none."""
    empty = True
    for record in records:
        empty = False
        yield record
    if empty:
        raise InputError(message)


def as_target(output: PathLike | None, natural: str) -> Path:
    """Where to write: what is named, else the natural name in the current folder."""
    return Path(natural) if output is None else Path(output)


def as_progress(progress: bool | Progress) -> Progress:
    """The sink for progress: a bar for True, none for False, or the one that is given."""
    if isinstance(progress, Progress):
        return progress
    if not progress or os.environ.get("RANK", "0") != "0":  # of several processes the first one shows it
        return SILENT
    from sanactl.api.bar import Bar

    return Bar()


def check_seed(seed: int) -> None:
    """Refuses a seed that records and readers of JSON would round.

    Raises:
        UsageError: it is below 0 or above 2^53 - 1.
    """
    if not 0 <= seed < 2**53:
        raise UsageError(f"the seed is {seed}", hint="it takes a whole number from 0 to 2^53 - 1")


def device_name(device: DeviceLike | None) -> str | None:
    """A device's name: "cuda:1" for `torch.device("cuda", 1)`."""
    return None if device is None else str(device)


def dtype_name(dtype: DtypeLike | None) -> str | None:
    """A dtype's name: "bfloat16" for `torch.bfloat16`; names pass as they are."""
    return None if dtype is None else str(dtype).removeprefix("torch.")


def precision_name(precision: DtypeLike | None) -> str | None:
    """A precision's short name: "bf16" for `torch.bfloat16`."""
    from sanactl.files.dtypes import find_dtype

    name = dtype_name(precision)
    known = find_dtype(name) if name is not None else None
    return known.short if known is not None else name


def warn(line: str) -> None:
    """A line that a person should know of, as Python's warning at the caller of `sanactl`."""
    depth, frame = 2, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("sanactl."):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(line, UserWarning, stacklevel=depth)
