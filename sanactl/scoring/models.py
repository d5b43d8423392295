"""Models of scores and detectors: a folder or a Hub id, its files with their digest, and their loading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.files.paths import user_path

__all__ = ["ModelFiles", "exact_fp32", "load_model", "model_files"]

# What these models are made of; a repository on the Hub may hold the same weights in other formats besides.
_PATTERNS = ("*.json", "*.txt", "*.safetensors")


@dataclass(frozen=True)
class ModelFiles:
    """A model's files on this machine.

    Attributes:
        name: the Hub id, or the folder's name.
        folder: where they are.
        config: of config.json.
    """

    name: str
    folder: Path
    config: dict[str, Any]

    @property
    def digest(self) -> str:
        """Of the weights and the other files ("sha256:..."); a large file is read once and remembered."""
        from sanactl.files.content import files_digest

        return files_digest(sorted(p for pattern in _PATTERNS for p in self.folder.glob(pattern)))


def model_files(source: str, kinds: tuple[str, ...], what: str) -> ModelFiles:
    """Finds a model, and downloads it where a Hub id names it.

    Args:
        source: a folder with a config.json, or a Hub id `owner/name`.
        kinds: the `model_type`s that will do.
        what: what the model is wanted as ("a detector"), for errors.

    Raises:
        InputError: there is none, it is of another kind, or the Hub cannot be reached.
    """
    from sanactl.model.guard import offline, read_config, reading

    path = user_path(source)
    if path.is_dir():
        folder, name = path, path.resolve().name
    elif path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", source) or source.startswith("."):
        raise InputError(
            f"{source}: no such folder",
            hint=f"give {what} as a folder with config.json or a Hub id owner/name",
        )
    else:
        from huggingface_hub import snapshot_download

        with reading(f"{source} as {what}"), offline(None):
            folder, name = Path(snapshot_download(source, allow_patterns=[*_PATTERNS])), source
    config = read_config(folder)
    if config.get("model_type") not in kinds:
        raise InputError(
            f"{source}: a {config.get('model_type')} model, not a {' or '.join(kinds)} as {what}"
        )
    return ModelFiles(name, folder, config)


def load_model(
    files: ModelFiles, auto_class: str, device: Any, dtype: Any, unneeded: str | None = None
) -> Any:
    """The model, in evaluation mode on a device, with its weights checked against its config.

    Args:
        auto_class: transformers' name of the auto class ("AutoModel").
        device, dtype: torch's.
        unneeded: a regular expression of tensors that may be missing.

    Raises:
        InputError: it cannot be loaded, or the weights are not those of the config.
    """
    import transformers
    from transformers.utils import logging

    from sanactl.files.lfs import refuse_pointers
    from sanactl.model.guard import offline, reading, weight_files
    from sanactl.model.pretrained import load_checked, place_on

    refuse_pointers(files.folder)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with offline(files.folder), reading(f"{files.folder}"):
        weights = weight_files(files.folder, "model")
        found = load_checked(
            getattr(transformers, auto_class), str(files.folder), weights, dtype, unneeded=unneeded
        )
    return place_on(found.eval().requires_grad_(False), device)


@contextmanager
def exact_fp32() -> Iterator[None]:
    """Inside, GPUs compute float32 as float32: by default convolutions round their inputs to TF32's 10 bits."""
    import torch

    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
