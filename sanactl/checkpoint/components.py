"""The components of a pipeline beside the transformer - text encoder, tokenizer, VAE, scheduler - and where to find them.

A checkpoint names each as {"source", "subfolder", "revision"}. A source is `builtin:shapes`, a path, or a Hub id.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sanactl.checkpoint.builtin import BUILTIN_PREFIX, builtin_folder
from sanactl.checkpoint.table import Checkpoint
from sanactl.errors import InputError
from sanactl.files.lfs import refuse_pointers
from sanactl.files.paths import from_json

__all__ = [
    "COMPONENTS",
    "cached_component",
    "component_folder",
    "component_source",
    "portable_components",
    "resolve_components",
]

COMPONENTS = ("text_encoder", "tokenizer", "vae", "scheduler")


def resolve_components(
    components: Mapping[str, Mapping[str, Any]], folder: Path
) -> dict[str, dict[str, Any]]:
    """Components with every local path made absolute; `folder` is the checkpoint's."""
    return {
        name: {**entry, "source": _resolve(entry["source"], folder)} for name, entry in components.items()
    }


def _resolve(source: str, folder: Path) -> str:
    source = from_json(source)
    if source.startswith(BUILTIN_PREFIX) or os.path.isabs(source):
        return source
    path = os.path.abspath(folder / source)
    if source.startswith("."):
        return path
    return path if os.path.exists(path) else source  # else a Hub id


def portable_components(
    components: Mapping[str, Mapping[str, Any]], folder: Path
) -> dict[str, dict[str, Any]]:
    """Components as they are written into a header: a path inside the checkpoint's `folder` becomes relative ("./vae").

    So a folder with a checkpoint and its components can be moved. Paths outside the folder stay absolute.
    """
    base = os.path.abspath(folder)
    result = {}
    for name, entry in components.items():
        source = entry["source"]
        if os.path.isabs(source) and os.path.commonpath([base, source]) == base:
            source = "./" + os.path.relpath(source, base).replace(os.sep, "/")
        result[name] = {**entry, "source": source}
    return result


def component_source(checkpoint: Checkpoint, entry: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The source of a component: an existing folder, or a Hub id with its options. Nothing is downloaded.

    Raises:
        InputError: its path does not exist.
    """
    source, subfolder = str(entry["source"]), entry.get("subfolder") or ""
    if source.startswith(BUILTIN_PREFIX):
        return str(builtin_folder(source) / subfolder), {}
    for base in (Path(source), Path(checkpoint.path).parent / source):
        folder = base / subfolder
        if folder.is_dir():
            refuse_pointers(folder)
            return str(folder), {}
    if source.startswith((".", "/")) or source.count("/") != 1:
        raise InputError(f"{checkpoint.path}: its component {source} is not there")
    options = {key: entry[key] for key in ("subfolder", "revision") if entry.get(key)}
    return source, options


def cached_component(checkpoint: Checkpoint, entry: Mapping[str, Any]) -> Path | None:
    """The folder of a component on this machine, including the Hub's cache; None if it must be downloaded first."""
    source, options = component_source(checkpoint, entry)
    if Path(source).is_dir():
        return Path(source)
    with contextlib.suppress(Exception):  # not in the cache
        folder = _hub_folder(source, options.get("subfolder") or "", options.get("revision"), local=True)
        return folder if folder.is_dir() else None
    return None


def component_folder(name: str, entry: Mapping[str, Any]) -> Path:
    """The local folder of a component. If it is not in the Hub's cache, this part of the repository is downloaded.

    Args:
        name: "vae", "text_encoder", "tokenizer" or "scheduler".
        entry: {"source", "subfolder", "revision"} as in `Checkpoint.components`.

    Raises:
        InputError: it cannot be found or downloaded.
    """
    source, subfolder = entry["source"], entry.get("subfolder") or ""
    if source.startswith(BUILTIN_PREFIX):
        folder = builtin_folder(source) / subfolder
    elif os.path.isabs(source):
        folder = Path(source) / subfolder
    else:
        folder = _downloaded(source, subfolder, entry.get("revision"))
    if not folder.is_dir():
        raise InputError(f"the checkpoint's {name} should lie in {folder}, which does not exist")
    refuse_pointers(folder)
    return folder


def _downloaded(source: str, subfolder: str, revision: str | None) -> Path:
    """A component's folder in the Hub's cache, downloaded if necessary."""
    with contextlib.suppress(Exception):  # not, or not wholly, in the cache
        folder = _hub_folder(source, subfolder, revision, local=True)
        if any(folder.glob("*.json")):
            return folder
    try:
        return _hub_folder(source, subfolder, revision, local=False)
    except Exception as error:  # huggingface_hub and its HTTP library raise many kinds
        raise InputError(f"cannot get {source} from the Hub: {error}", hint="check the network") from error


def _hub_folder(source: str, subfolder: str, revision: str | None, *, local: bool) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [f"{subfolder}/*" if subfolder else "*"]
    root = snapshot_download(source, revision=revision, allow_patterns=patterns, local_files_only=local)
    return Path(root) / subfolder
