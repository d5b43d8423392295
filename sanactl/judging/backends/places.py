"""Where a judge's model is: checked before the libraries that load it are imported."""

from __future__ import annotations

from pathlib import Path

from sanactl.errors import InputError
from sanactl.files.paths import user_path
from sanactl.judging.backends.adapters import ADAPTER

__all__ = ["nvila_folder", "place_of"]

# The files of an NVILA that are downloaded.
_NEEDED = ("*.json", "*/*.json", "*/*.safetensors", "*/*.txt", "*.jinja", "*/*.jinja")


def place_of(source: str) -> str:
    """The folder or Hub id to load. A missing folder fails here; transformers would look for it on the Hub."""
    path = user_path(source)
    if path.is_dir():
        if (path / "mm_projector").is_dir() and (path / "llm").is_dir():
            raise InputError(f"{source}: a folder of NVILA", hint=f"name it as nvila:{source}")
        if not (path / "config.json").is_file() and not (path / ADAPTER).is_file():
            raise InputError(f"{source}: no model in this folder (no config.json)")
        return str(path)
    if path.exists():
        raise InputError(f"{source}: a file; a judge is a folder with config.json and a processor")
    if source.count("/") != 1 or source.startswith((".", "/", "~")) or source.endswith("/"):
        raise InputError(
            f"{source}: no such folder",
            hint="give a folder, a Hub id owner/name, or a name that sanactl judge --help lists",
        )
    return source


def nvila_folder(source: str) -> Path:
    """The local folder of an NVILA; that of a Hub id is downloaded."""
    path = user_path(source)
    if path.is_dir():
        return path
    if path.exists() or source.count("/") != 1 or source.startswith((".", "/", "~")) or source.endswith("/"):
        raise InputError(
            f"{source or 'nvila'}: no such folder",
            hint="give nvila:FOLDER, or nvila:Efficient-Large-Model/NVILA-Lite-2B-Verifier",
        )
    from huggingface_hub import snapshot_download

    from sanactl.model.guard import reading

    with reading(f"{source} as a judge"):
        return Path(snapshot_download(source, allow_patterns=list(_NEEDED)))
