"""Judges that are adapters over another model, as `train-judge --no-merge` and peft write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sanactl.checkpoint.folder import read_json
from sanactl.errors import InputError
from sanactl.files.paths import user_path

__all__ = ["ABOUT", "ADAPTER", "add_adapter", "base_of", "labels_of"]

ADAPTER = "adapter_config.json"
# What `train-judge` writes beside a model about how it was made.
ABOUT = "train-judge.json"


def base_of(folder: Path) -> str | None:
    """The folder or Hub id that an adapter folder names as its base; None for a folder that is no adapter.

    Raises:
        InputError: the adapter's config is damaged, of another kind than LoRA, or names a folder that is not there.
    """
    file = folder / ADAPTER
    if not file.is_file():
        return None
    config = read_json(file)
    base = config.get("base_model_name_or_path")
    if config.get("peft_type") != "LORA":
        raise InputError(
            f"{file}: adapters of kind {str(config.get('peft_type'))[:40]!r}, and sanactl takes LoRA's"
        )
    if not (folder / "adapter_model.safetensors").is_file():
        raise InputError(f"{folder} holds no adapter_model.safetensors", hint="copy it again")
    if not isinstance(base, str) or not base:
        raise InputError(f"{file}: names no base model")
    path = user_path(base)
    if path.is_absolute() and not path.is_dir():
        raise InputError(
            f"{folder} is an adapter of {base}, and that folder is not there",
            hint=f"write the base's new place into {file}",
        )
    return str(path) if path.is_dir() else base


def add_adapter(model: Any, folder: Path, name: str) -> None:
    """Adds an adapter folder's layers to its base; they stay layers of their own, so that a quantized base is not changed.

    Raises:
        InputError: peft is missing, or the adapter does not fit the base.
    """
    from importlib.util import find_spec

    from sanactl.model.guard import reading

    if find_spec("peft") is None:
        raise InputError(
            f"{name} is an adapter, which needs the package peft", hint="pip install 'sanactl[lora]'"
        )
    with reading(name):
        from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

        from sanactl.model.tensors import read_tensors

        config = LoraConfig.from_pretrained(str(folder))
        config.inference_mode = True
        state = {
            key.removeprefix("base_model.model."): tensor
            for key, tensor in read_tensors(folder / "adapter_model.safetensors").items()
        }
        inject_adapter_in_model(config, model)
        found: Any = set_peft_model_state_dict(model, state)
    missing = [key for key in found.missing_keys if "lora_" in key]
    if missing or found.unexpected_keys:
        wrong = [*missing, *found.unexpected_keys][0]
        raise InputError(f"{name}: its tensors are not those of its base ({wrong[:120]})")
    model.eval()


def labels_of(folder: Path) -> str | None:
    """The detectors whose labels a judge was trained on, as `train-judge` has noted them beside it."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        labels = about["labels"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return labels if isinstance(labels, str) and labels else None
