"""From what the user names - a file, a folder, a whole pipeline, a Hub id - to the safetensors files to open."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sanactl.errors import InputError, SanactlError
from sanactl.io.ckpt_metadata import COMPANIONS

__all__ = ["INDEX_NAME", "PICKLES", "WEIGHTS_NAME", "Located", "locate", "read_json"]

WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
INDEX_NAME = f"{WEIGHTS_NAME}.index.json"
_JSON_LIMIT = 100_000_000  # bytes
_HUB_TIMEOUT = 10.0  # seconds
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
PICKLES = {".pth", ".pt", ".ckpt", ".bin"}
_FILES = {".st", ".safetensors", ".json", *PICKLES}


@dataclass(frozen=True)
class Located:
    """The files behind a reference.

    Attributes:
        kind: "file", "folder" (one transformer), "pipeline" or "hub".
        path: the file, or the folder that holds the transformer's config.json.
        files: safetensors files, in order.
        index: tensor name to file name, for a sharded folder.
        config: from config.json, None where the file describes itself.
        companions: from a pipeline's model_index.json.
    """

    kind: str
    path: Path
    files: list[Path]
    index: dict[str, str] | None = None
    config: dict[str, Any] | None = None
    companions: dict[str, dict[str, Any]] = field(default_factory=dict)


def locate(
    ref: str | os.PathLike[str], *, revision: str | None = None, variant: str | None = None
) -> Located:
    """Find a checkpoint's files, downloading the transformer's part of a Hub repository where it is not cached.

    Raises:
        InputError: nothing there, or not a checkpoint; at once for anything that can only be a local path.
    """
    text = os.fspath(ref)
    if not text:  # a Path of it would be the current folder
        raise InputError("the checkpoint's name is empty", hint="name a file, a folder or a Hub id")
    path = Path(text).expanduser()
    if path.is_dir():
        return _folder(path, variant)
    if os.path.lexists(path):
        return _file(path)
    if _is_hub_id(text):
        return _hub(text, revision, variant)
    raise InputError(f"{text} does not exist", hint=_nearby(path))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of sane size."""
    try:
        if path.stat().st_size > _JSON_LIMIT:
            raise InputError(
                f"{path} has {path.stat().st_size:,} bytes, too many for a JSON file of a checkpoint"
            )
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} does not hold a JSON object")
    return value


def _is_hub_id(text: str) -> bool:
    """Whether `owner/name` can be meant: no file's suffix, and no local folder of the owner's name."""
    return (
        bool(_HUB_ID.match(text))
        and Path(text).suffix.lower() not in _FILES
        and not Path(text).parent.exists()
    )


def _nearby(path: Path) -> str:
    try:
        names = sorted(item.name for item in path.parent.iterdir() if item.suffix in (".st", ".safetensors"))
    except OSError:
        return f"there is no folder {path.parent} either"
    return (
        f"{path.parent} holds {', '.join(names[:3])}"
        if names
        else "name a checkpoint file, a folder or a Hub id"
    )


def _file(path: Path) -> Located:
    if path.suffix.lower() in PICKLES:
        raise InputError(f"{path} is a pickled checkpoint", hint=f"sanactl convert {path} gives a .st file")
    if re.search(r"-\d{5}-of-\d{5}\.safetensors$", path.name):
        raise InputError(f"{path} is one shard of several", hint=f"name its folder, {path.parent}")
    config = None
    if path.name.startswith("diffusion_pytorch_model") and (path.parent / "config.json").is_file():
        config = read_json(path.parent / "config.json")
    return Located("file", path, [path], config=config)


def _folder(path: Path, variant: str | None) -> Located:
    if (path / "model_index.json").is_file():
        found = _transformer(path / "transformer", variant)
        return Located(
            "pipeline",
            found.path,
            found.files,
            found.index,
            found.config,
            _companions(path, str(path.absolute())),
        )
    return _transformer(path, variant)


def _transformer(path: Path, variant: str | None) -> Located:
    if not (path / "config.json").is_file():
        raise InputError(
            f"{path} is not a checkpoint: it holds no config.json",
            hint="name a .st file, or a folder with config.json and diffusion_pytorch_model.safetensors",
        )
    chosen = _choose(os.listdir(path), variant, str(path))
    config = read_json(path / "config.json")
    if not chosen.endswith(".json"):
        return Located("folder", path, [path / chosen], config=config)
    index = _read_index(path / chosen)
    return Located("folder", path, [path / name for name in dict.fromkeys(index.values())], index, config)


def _choose(names: Iterable[str], variant: str | None, where: str) -> str:
    """The weights file or the index to open. Without `variant` the plain one, else bf16, else the only one."""
    names = set(names)
    plain = [name for name in (WEIGHTS_NAME, INDEX_NAME) if name in names]
    variants: dict[str, str] = {}
    for name in sorted(names):
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


def _read_index(path: Path) -> dict[str, str]:
    """The weight_map of an index.json, whose shards are plain names of files beside it."""
    index = read_json(path).get("weight_map")
    if not isinstance(index, dict) or not index or not all(isinstance(name, str) for name in index.values()):
        raise InputError(f"{path} has no weight_map from tensors to files")
    for name in dict.fromkeys(index.values()):
        if name in ("", ".", "..") or re.search(r"[/\\\0]", name):
            raise InputError(f"{path} points outside its folder: {name!r}")
        if not (path.parent / name).is_file():
            raise InputError(
                f"{path} names the shard {name}, which is not there", hint="copy or download it again"
            )
    return index


def _companions(folder: Path, source: str, revision: str | None = None) -> dict[str, dict[str, Any]]:
    listed = read_json(folder / "model_index.json")
    extra = {"revision": revision} if revision else {}
    return {
        name: {"source": source, "subfolder": name, **extra}
        for name in COMPANIONS
        if isinstance(listed.get(name), list) and all(listed[name])
    }


def _hub(ref: str, revision: str | None, variant: str | None) -> Located:
    """Resolve a Hub id: what the cache holds, else a download of the transformer alone (and model_index.json)."""
    from huggingface_hub import HfApi, snapshot_download

    def found(folder: str) -> Located:
        root = Path(folder)
        inside = root / "transformer" if (root / "transformer" / "config.json").is_file() else root
        part = _transformer(inside, variant)
        companions = _companions(root, ref, revision) if (root / "model_index.json").is_file() else {}
        return Located("hub", part.path, part.files, part.index, part.config, companions)

    try:
        return found(snapshot_download(ref, revision=revision, local_files_only=True))
    except (SanactlError, OSError, ValueError):
        pass  # not, or not wholly, in the cache
    try:
        # model_info asks once; list_repo_files and snapshot_download retry for 20 s where there is no network
        siblings = HfApi().model_info(ref, revision=revision, timeout=_HUB_TIMEOUT).siblings or []
        names = [sibling.rfilename for sibling in siblings]
        prefix = "transformer/" if "transformer/config.json" in names else ""
        inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        if "config.json" not in inside:
            raise InputError(
                f"{ref} on the Hub holds no diffusers transformer", hint="SANA's are named ..._diffusers"
            )
        chosen = _choose([name for name in inside if "/" not in name], variant, ref)
        wanted = [f"{prefix}config.json", f"{prefix}{chosen}", "model_index.json"]
        if chosen.endswith(".json"):
            folder = snapshot_download(ref, revision=revision, allow_patterns=wanted)
            shards = read_json(Path(folder) / f"{prefix}{chosen}").get("weight_map", {})
            wanted += [prefix + str(name) for name in set(shards.values())]
        return found(snapshot_download(ref, revision=revision, allow_patterns=wanted))
    except SanactlError:
        raise
    except Exception as error:  # huggingface_hub and its HTTP library raise many kinds
        raise InputError(
            f"{ref} is neither here nor to be had from the Hub: {_first_line(error)}",
            hint="check the name, the network, HF_HUB_OFFLINE and `hf auth login`",
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
