"""Reading a diffusers transformer folder: choosing its weight files, and checking its JSON files."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.files.json_values import brief, parse_json, shown
from sanactl.files.lfs import is_pointer, pointer_error

__all__ = [
    "INDEX_NAME",
    "WEIGHTS_NAME",
    "Located",
    "choose_weights",
    "read_index",
    "read_json",
    "transformer_folder",
]

WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
INDEX_NAME = f"{WEIGHTS_NAME}.index.json"
_JSON_LIMIT = 20_000_000  # bytes; the index of a SANA of 1,024 blocks has 3 million
_MAX_SHARDS = 10_000


@dataclass(frozen=True)
class Located:
    """The files behind a reference.

    Attributes:
        kind: "file", "folder" (a transformer alone), "pipeline" or "hub".
        path: the file, or the folder with the transformer's config.json.
        files: safetensors files, in order.
        index: tensor name to file name, for a sharded folder.
        config: from config.json; None if the file has its own config.
        components: from a pipeline's model_index.json.
        notes: lines for the user about the choice of files.
    """

    kind: str
    path: Path
    files: list[Path]
    index: dict[str, str] | None = None
    config: dict[str, Any] | None = None
    components: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_json(path: Path, *, constants: bool = False) -> dict[str, Any]:
    """Read a JSON object from a file of limited size; `constants` as for `parse_json`.

    Raises:
        InputError: it cannot be read, is too large, or is not a JSON object.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for a writer
            raise InputError(f"{path} is not a regular file")
        if status.st_size > _JSON_LIMIT:
            raise InputError(f"{path} has {status.st_size:,} bytes, too many for a JSON file of a checkpoint")
        if is_pointer(path):
            raise pointer_error(path)
        with path.open("rb") as file:
            value = parse_json(file.read(_JSON_LIMIT).decode("utf-8"), constants=constants)
    except OSError as error:
        raise InputError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} does not hold a JSON object")
    return value


def transformer_folder(path: Path, variant: str | None) -> Located:
    if not (path / "config.json").is_file():
        raise InputError(
            f"{path} is not a checkpoint: it holds no config.json",
            hint="name a .st file, or a folder with config.json and diffusion_pytorch_model.safetensors",
        )
    chosen = choose_weights(_listed(path), variant, str(path))
    config = read_json(path / "config.json")
    if not chosen.endswith(".json"):
        return Located("folder", path, [path / chosen], config=config)
    variant = chosen.removeprefix(f"{WEIGHTS_NAME}.index").removesuffix("json").strip(".")
    whole = WEIGHTS_NAME.replace(".", f".{variant}.") if variant else WEIGHTS_NAME
    both = (path / whole).is_file()
    try:
        index = read_index(path / chosen)
    except InputError as error:
        if both:
            raise InputError(
                f"{path} holds both {whole} and an index, which counts in diffusers; {error.message}",
                hint=f"remove {chosen} if {whole} is the whole model",
            ) from error
        raise
    files = [path / name for name in dict.fromkeys(index.values())]
    if both and path / whole not in files:
        note = f"{path} holds both {whole} and {chosen}: the index counts, as in diffusers"
        return Located("folder", path, files, index, config, notes=(note,))
    return Located("folder", path, files, index, config)


def _listed(path: Path) -> list[str]:
    try:
        return os.listdir(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from error


def choose_weights(names: Iterable[str], variant: str | None, where: str) -> str:
    """The name of the weights file or index to open. Without `variant`: the plain one, else bf16, else the only one.

    If there are both a weights file and an index, the index is chosen, as in diffusers.
    """
    names = set(names)
    plain = [name for name in (INDEX_NAME, WEIGHTS_NAME) if name in names]
    variants: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (not name.endswith(".json"), name)):
        match = re.fullmatch(r"diffusion_pytorch_model\.(\w+)\.safetensors", name) or re.fullmatch(
            r"diffusion_pytorch_model\.safetensors\.index\.(\w+)\.json", name
        )
        if match:
            variants.setdefault(match[1], name)
    if variant is not None:
        if variant in variants:
            return variants[variant]
        raise InputError(
            f"{where} has no variant {variant}", hint=f"it has {', '.join(['the plain one', *variants])}"
        )
    if plain:
        return plain[0]
    if "bf16" in variants or len(variants) == 1:
        return variants.get("bf16") or next(iter(variants.values()))
    if variants:
        raise InputError(f"{where} has several variants: {', '.join(variants)}", hint="name one")
    if any(name.endswith(".bin") for name in names):
        raise InputError(
            f"{where} holds pickled weights only (.bin)", hint="save it as safetensors with diffusers first"
        )
    raise InputError(f"{where} holds no {WEIGHTS_NAME}")


def read_index(path: Path) -> dict[str, str]:
    """The weight_map of an index.json; its shards must be names of files in the same folder."""
    index = read_json(path).get("weight_map")
    if not isinstance(index, dict) or not index or not all(isinstance(name, str) for name in index.values()):
        raise InputError(f"{path} has no weight_map from tensors to files")
    shards = list(dict.fromkeys(index.values()))
    if len(shards) > _MAX_SHARDS:
        raise InputError(f"{path} names {len(shards):,} shards; sanactl takes at most {_MAX_SHARDS:,}")
    for name in shards:
        if name in ("", ".", "..") or re.search(r"[/\\\0]", name):
            raise InputError(f"{path} points outside its folder: {brief(name)}")
        if not os.path.isfile(path.parent / name):
            raise InputError(
                f"{path} names the shard {shown(name)}, which is not there", hint="copy or download it again"
            )
    return index
