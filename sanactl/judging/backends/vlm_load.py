"""An image-text-to-text model and its processor from a folder or the Hub, checked while they are loaded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from sanactl.errors import InputError, UsageError
from sanactl.files.lfs import refuse_pointers
from sanactl.files.regular import open_regular
from sanactl.judging.backends.adapters import add_adapter, base_of, labels_of
from sanactl.judging.backends.labels import LABELS
from sanactl.judging.backends.processors import load_processor
from sanactl.judging.backends.quantize import quantized_loading
from sanactl.judging.shipped import CALIBRATION
from sanactl.model.guard import offline, read_config, reading, weight_files
from sanactl.model.pretrained import load_checked, place_on

__all__ = ["files_of", "load_vlm"]

# Bytes up to which a file is read as a whole, and how many parts of which size of a larger one.
_WHOLE, _PARTS, _PART = 2**24, 256, 2**16


def load_vlm(
    place: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
    quantize: str = "",
) -> tuple[Any, Any]:
    """Loads a model and its processor.

    Args:
        place: a folder with a config.json or of an adapter, or a Hub id.
        device, dtype: where and in what the model runs.
        trust_remote_code: run the repository's own code, which is not restricted in any way.
        quantize: see `sanactl.judging.backends.quantize.quantized_loading`.

    Returns:
        The model and the processor.

    Raises:
        InputError: they cannot be loaded, or the weights are not those of the config.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    folder = Path(place) if Path(place).is_dir() else None
    if folder is not None:
        logging.disable_progress_bar()  # it is for downloads; a folder loads at once
        refuse_pointers(folder)
    logging.set_verbosity_error()
    what = f"{place} as a judge"
    base = None if folder is None else base_of(folder)
    if folder is not None and base is not None:
        if trust_remote_code:
            raise UsageError("an adapter and trust_remote_code exclude each other")
        return _adapted(folder, base, device=device, dtype=dtype, quantize=quantize)
    if trust_remote_code:
        if quantize:
            raise UsageError("quantize and trust_remote_code exclude each other")
        with reading(what):
            processor = AutoProcessor.from_pretrained(place, trust_remote_code=True)
            # The repository's own class may not know options of transformers.
            model = AutoModelForImageTextToText.from_pretrained(place, dtype=dtype, trust_remote_code=True)
            return place_on(model, device), processor
    with offline(folder), reading(what):
        loading = quantized_loading(quantize, place, device, dtype)
        model = _model(place, folder, dtype, loading)
        processor = load_processor(place)
        # bitsandbytes' tensors are on their device already.
        return model if loading else place_on(model, device), processor


def _adapted(
    folder: Path, base: str, *, device: torch.device, dtype: torch.dtype, quantize: str
) -> tuple[Any, Any]:
    """A base with the adapter of a folder, and the base's processor."""
    if Path(base).is_dir() and base_of(Path(base)) is not None:
        raise InputError(f"{folder} is an adapter of {base}, which is an adapter itself")
    model, processor = load_vlm(base, device=device, dtype=dtype, quantize=quantize)
    add_adapter(model, folder, str(folder))
    if labels := labels_of(folder):
        model.config.update({LABELS: labels})
    return model, processor


def _model(place: str, folder: Path | None, dtype: torch.dtype, loading: dict[str, Any]) -> Any:
    from transformers import AutoModelForImageTextToText

    weights = None
    if folder is not None:
        read_config(folder)
        if any(folder.glob("*.safetensors")) or not any(folder.glob("*.bin")):
            weights = weight_files(folder, "model")
    return load_checked(AutoModelForImageTextToText, place, weights, dtype, **loading)


def files_of(folder: Path) -> list[list[Any]]:
    """Which files a folder and its parts hold, with sizes and digests; nothing for a Hub id, whose commit is known.

    Of a large file, parts spread over it are read: those of other weights differ everywhere. The judge's calibration is
    left out, since no verdict depends on it. Those of an adapter's base are behind its own.
    """
    found = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    found = [p for p in found if p != folder / CALIBRATION]
    files = [[str(p.relative_to(folder)), p.stat().st_size, _digest(p)] for p in found]
    base = base_of(folder)
    return files if base is None or not Path(base).is_dir() else [*files, *files_of(Path(base))]


def _digest(path: Path) -> str:
    size = path.stat().st_size
    count, length = (1, size) if size <= _WHOLE else (_PARTS, _PART)
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        for number in range(count):
            stream.seek((size - length) * number // max(1, count - 1))
            digest.update(stream.read(length))
    return digest.hexdigest()[:16]
