"""The files of a model that answers questions: a folder, or a download from the Hub."""

from __future__ import annotations

import re
from pathlib import Path

from sanactl.errors import InputError
from sanactl.files.paths import user_path

__all__ = ["CLASSES", "model_folder", "weights_digest"]

# Of a repository on the Hub: no other formats of the same weights.
_NEEDED = ["*.json", "*.txt", "*.safetensors", "*.jinja", "*.model"]
_SPARE = ["original/*", "onnx/*", "openvino/*"]
# VQA models of transformers that are no chat models, by their config's model_type.
CLASSES = ("vilt", "blip")


def model_folder(source: str) -> tuple[Path, str]:
    """A model's folder and name; the files of a Hub id are downloaded.

    Raises:
        InputError: there is none.
    """
    path = user_path(source)
    if source and path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{source}: no model in this folder (no config.json)")
        return path, path.resolve().name
    if (source and path.exists()) or not re.fullmatch(r"[\w.-]+/[\w.-]+", source) or source.startswith("."):
        raise InputError(
            f"{source or 'the VQA model'}: no such folder",
            hint="--vqa takes a folder with config.json, a Hub id owner/name, http://HOST:PORT/v1#MODEL, or shapes",
        )
    from huggingface_hub import snapshot_download

    from sanactl.model.guard import offline, reading

    with reading(f"{source} as a VQA model"), offline(None):
        return Path(snapshot_download(source, allow_patterns=_NEEDED, ignore_patterns=_SPARE)), source


def weights_digest(folder: Path) -> str:
    """Of a model's files ("sha256:..."); large ones are read once and remembered."""
    from sanactl.files.content import files_digest

    return files_digest(sorted({p for pattern in (*_NEEDED, "*.bin") for p in folder.rglob(pattern)}))
