"""Models of transformers, such as those of scores, detectors and guards: a folder or a Hub id, its files with their digest,
and their loading."""

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
        patterns: what the files that count are called.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    patterns: tuple[str, ...] = _PATTERNS

    @property
    def digest(self) -> str:
        """Of the weights and the other files ("sha256:..."); a large file is read once and remembered."""
        from sanactl.files.content import files_digest

        return files_digest(sorted(p for pattern in self.patterns for p in self.folder.glob(pattern)))


def model_files(
    source: str, kinds: tuple[str, ...], what: str, *, patterns: tuple[str, ...] = _PATTERNS
) -> ModelFiles:
    """Finds a model, and downloads it where a Hub id names it.

    Args:
        source: a folder with a config.json, or a Hub id `owner/name`.
        kinds: the `model_type`s that will do; empty for any.
        what: what the model is wanted as ("a detector"), for errors.
        patterns: the files to download and to count in the digest.

    Raises:
        InputError: there is none, it is of another kind, its licence has not been accepted, or the Hub cannot be reached.
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
        from huggingface_hub.errors import GatedRepoError

        with reading(f"{source} as {what}"), offline(None):
            try:
                folder, name = Path(snapshot_download(source, allow_patterns=[*patterns])), source
            except GatedRepoError:
                raise InputError(
                    f"{source} is gated: its licence has to be accepted before it is downloaded",
                    hint=f"accept it at https://huggingface.co/{source}, then log in with: hf auth login",
                ) from None
    config = read_config(folder)
    if kinds and config.get("model_type") not in kinds:
        raise InputError(
            f"{source}: a {config.get('model_type')} model, not {what} (model_type {' or '.join(kinds)})"
        )
    return ModelFiles(name, folder, config, patterns)


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
