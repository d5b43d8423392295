"""Find the safetensors files to open for what the user names: a file, a folder, a whole pipeline, a Hub id."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sanactl.checkpoint.components import COMPONENTS
from sanactl.checkpoint.folder import (
    INDEX_NAME,
    WEIGHTS_NAME,
    Located,
    choose_weights,
    read_json,
    transformer_folder,
)
from sanactl.checkpoint.layouts.diffusers import SAFETENSORS
from sanactl.checkpoint.layouts.registry import layout_read
from sanactl.errors import InputError, SanactlError
from sanactl.files.json_values import brief, shown
from sanactl.files.lfs import is_pointer, pointer_error
from sanactl.files.paths import user_path

__all__ = ["INDEX_NAME", "WEIGHTS_NAME", "Located", "local_path", "locate", "read_json"]

_HUB_TIMEOUT = 10.0  # seconds
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}\Z")  # the Hub's own limit


def locate(
    ref: str | os.PathLike[str], *, revision: str | None = None, variant: str | None = None
) -> Located:
    """Find a checkpoint's files. If a Hub repository is not cached, its transformer's part is downloaded.

    Raises:
        InputError: there is nothing, or it is not a checkpoint. The network is not used if it can only be a local path.
    """
    text = os.fspath(ref)
    path = local_path(text)
    if os.path.isdir(path):
        return _folder(path, variant)
    if os.path.lexists(path):
        return _file(path)
    if _is_hub_id(text):
        return _hub(text, revision, variant)
    raise InputError(f"{shown(text)} does not exist", hint=_nearby(path))


def local_path(text: str) -> Path:
    """The path that a name means: the name itself if it exists, else with ~ as the home folder.

    Raises:
        InputError: no path can have this name.
    """
    if not text:  # Path("") would be the current folder
        raise InputError("the checkpoint's name is empty", hint="name a file, a folder or a Hub id")
    if "\0" in text:
        raise InputError(f"{brief(text)} is no path: it holds a null character")
    return user_path(text)


def _is_hub_id(text: str) -> bool:
    """Whether it can be a Hub id: no file suffix, and no local folder with the owner's name."""
    suffix = Path(text).suffix.lower()
    of_a_file = suffix in (*SAFETENSORS, ".json") or layout_read(suffix) is not None
    return bool(_HUB_ID.match(text)) and not of_a_file and not Path(text).parent.exists()


def _nearby(path: Path) -> str:
    try:
        names = sorted(item.name for item in path.parent.iterdir() if item.suffix in SAFETENSORS)
    except (OSError, ValueError):
        return f"there is no folder {shown(str(path.parent))} either"
    return (
        f"{path.parent} holds {', '.join(shown(name) for name in names[:3])}"
        if names
        else "name a checkpoint file, a folder or a Hub id"
    )


def _file(path: Path) -> Located:
    if is_pointer(path):
        raise pointer_error(path)
    if layout := layout_read(path.suffix.lower()):
        raise InputError(f"{path} is {layout.what}", hint=f"sanactl convert {path} gives a .st file")
    if re.search(r"-\d{5}-of-\d{5}\.safetensors$", path.name):
        raise InputError(f"{path} is one shard of several", hint=f"name its folder, {path.parent}")
    config = None
    if path.name.startswith("diffusion_pytorch_model") and (path.parent / "config.json").is_file():
        config = read_json(path.parent / "config.json")
    return Located("file", path, [path], config=config)


def _folder(path: Path, variant: str | None) -> Located:
    if (path / "model_index.json").is_file():
        found = transformer_folder(path / "transformer", variant)
        return Located(
            "pipeline",
            found.path,
            found.files,
            found.index,
            found.config,
            _components(path, str(path.absolute())),
            found.notes,
        )
    return transformer_folder(path, variant)


def _components(folder: Path, source: str, revision: str | None = None) -> dict[str, dict[str, Any]]:
    listed = read_json(folder / "model_index.json")
    extra = {"revision": revision} if revision else {}
    return {
        name: {"source": source, "subfolder": name, **extra}
        for name in COMPONENTS
        if isinstance(listed.get(name), list) and listed[name] and all(listed[name])
    }


def _hub(ref: str, revision: str | None, variant: str | None) -> Located:
    """Find a Hub id in the cache, else download the transformer alone (and model_index.json)."""
    from huggingface_hub import HfApi, snapshot_download

    def found(folder: str) -> Located:
        root = Path(folder)
        inside = root / "transformer" if (root / "transformer" / "config.json").is_file() else root
        part = transformer_folder(inside, variant)
        components = _components(root, ref, revision) if (root / "model_index.json").is_file() else {}
        return Located("hub", part.path, part.files, part.index, part.config, components, part.notes)

    try:
        return found(snapshot_download(ref, revision=revision, local_files_only=True))
    except (SanactlError, OSError, ValueError):
        pass  # not, or not wholly, in the cache
    try:
        # model_info tries once; without a network, list_repo_files and snapshot_download retry for 20 s
        siblings = HfApi().model_info(ref, revision=revision, timeout=_HUB_TIMEOUT).siblings or []
        names = [sibling.rfilename for sibling in siblings]
        prefix = "transformer/" if "transformer/config.json" in names else ""
        inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        if "config.json" not in inside:
            raise InputError(
                f"{ref} on the Hub holds no diffusers transformer", hint="SANA's are named ..._diffusers"
            )
        chosen = choose_weights([name for name in inside if "/" not in name], variant, ref)
        wanted = [f"{prefix}config.json", f"{prefix}{chosen}", "model_index.json"]
        if chosen.endswith(".json"):
            folder = snapshot_download(ref, revision=revision, allow_patterns=wanted)
            shards = read_json(Path(folder) / f"{prefix}{chosen}").get("weight_map")
            wanted += (
                [prefix + str(name) for name in set(map(str, shards.values()))]
                if isinstance(shards, dict)
                else []
            )
        return found(snapshot_download(ref, revision=revision, allow_patterns=wanted))
    except SanactlError:
        raise
    except Exception as error:  # huggingface_hub and its HTTP library raise many kinds
        raise InputError(
            f"{ref} does not exist here and cannot be downloaded from the Hub: {_first_line(error)}",
            hint="check the name, the network, HF_HUB_OFFLINE and `hf auth login`",
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
