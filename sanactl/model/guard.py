"""Safe use of other libraries' loaders: their errors become one line, and no config can download code or weights.

A library checks a model's files while it builds the model, and raises many kinds of errors. So the files are checked
first as far as possible (`check_numbers`, `weight_files`), and other errors are caught in one place (`reading`).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sanactl.checkpoint.folder import read_index, read_json
from sanactl.errors import InputError, SanactlError, without_stop
from sanactl.files.json_values import brief, shown
from sanactl.files.safetensors import TensorInfo, read_header

__all__ = [
    "Weights",
    "check_loaded",
    "check_numbers",
    "check_size",
    "offline",
    "pin_attention",
    "reading",
    "weight_files",
]

_MAX_NUMBER = 1 << 40
# transformers writes 10^30 for a tokenizer without a limit, Gemma's among them. Nothing is allocated for it.
_ANY_SIZE = frozenset(["model_max_length"])
_MAX_LAYERS = 1024
_LAYERS = re.compile(r"(^|_)(n_)?(layers?|blocks|depths?|layers_per_block)$")
# The message's first line can be a whole config.
_MAX_REASON = 240


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn an error of a library into one line.

    Args:
        what: the component or file ("p/vae"); the line begins with it.

    Raises:
        InputError: instead of any error of a library, including a panic of Rust code. An interrupt, a lack of memory and
            sanactl's own errors are not changed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (SanactlError, MemoryError, NameError, torch.OutOfMemoryError):  # NameError: a bug of sanactl
        raise
    except Exception as error:
        if _interrupted(error):
            raise KeyboardInterrupt from error
        reason = _reason(error)
        raise InputError(f"{what} cannot be used: {reason}", hint=_hint(reason)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{what} cannot be used: {_reason(error)}") from error


# How libraries say that a Hub id is not in the cache and cannot be downloaded.
_NO_NETWORK = ("outgoing traffic", "cached snapshot", "snapshot folder", "couldn't connect", "ConnectError")


def _hint(reason: str) -> str | None:
    """What to do where a Hub id is not in the cache and there is no network."""
    if any(sign in reason for sign in _NO_NETWORK):
        return "where there is a network: hf download ID --local-dir FOLDER; then name FOLDER in place of the Hub id"
    return None


def _interrupted(error: BaseException | None) -> bool:
    """Whether an error was caused by an interrupt that a library caught."""
    seen = 0
    while error is not None and seen < 100:
        if isinstance(error, KeyboardInterrupt):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def _reason(error: BaseException) -> str:
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2]) if lines else ""
    # A KeyError's text is only the key, and some libraries give no text.
    if not text or isinstance(error, KeyError | IndexError | AttributeError | AssertionError):
        text = f"{type(error).__name__} {text}".strip()
    return without_stop(text) if len(text) <= _MAX_REASON else text[:_MAX_REASON] + "..."


@contextmanager
def offline(folder: Path | None) -> Iterator[None]:
    """Prevent downloads while a local folder is loaded; a config can name a kernel or a backbone on the Hub.

    Args:
        folder: the local folder; None for a Hub id, which may be downloaded.
    """
    if folder is None:
        yield
        return
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def pin_attention(config: Any) -> None:
    """Make transformers use its own attention (sdpa, else eager), not the one that a config names.

    A config can name a kernel on the Hub; it would be downloaded and run.
    """
    from transformers import PretrainedConfig

    waiting, seen = [config], set[int]()
    while waiting:
        part = waiting.pop()
        if isinstance(part, PretrainedConfig) and id(part) not in seen:
            seen.add(id(part))
            part._attn_implementation = None
            part._experts_implementation = None
            waiting += vars(part).values()


def local_folder(source: str) -> Path | None:
    """The folder that a source names, or None for a Hub id."""
    return Path(source) if Path(source).is_dir() else None


def read_config(folder: Path, name: str = "config.json", *, constants: bool = False) -> dict[str, Any]:
    """A component's config, after a check of its numbers; `constants` as in `read_json`.

    Raises:
        InputError: it does not exist, is not JSON, or a number is out of range; the message names the file.
    """
    if not (folder / name).exists():
        raise InputError(f"{folder} holds no {name}", hint="copy or download it again")
    config = read_json(folder / name, constants=constants)
    check_numbers(config, str(folder / name))
    return config


def check_numbers(config: Any, where: str, key: str = "") -> None:
    """Refuse numbers in a config that would make a library work for hours before it fails.

    Raises:
        InputError: names the key.
    """
    if isinstance(config, Mapping):
        for name, value in config.items():
            if name not in _ANY_SIZE:
                check_numbers(value, where, str(name))
    elif isinstance(config, list | tuple):
        if len(config) > _MAX_LAYERS:
            raise InputError(f"{where}: {shown(key)} is {brief(config)}; at most {_MAX_LAYERS:,} are taken")
        for value in config:
            check_numbers(value, where, key)
    elif isinstance(config, int | float) and not isinstance(config, bool):
        # Every scheduler's config has -inf.
        if math.isfinite(config) and abs(config) > _MAX_NUMBER:
            raise InputError(f"{where}: {shown(key)} is {brief(config)}, which is too large")
        if _LAYERS.search(key) and config > _MAX_LAYERS:
            raise InputError(f"{where}: {shown(key)} is {brief(config)}; at most {_MAX_LAYERS:,} are taken")


@dataclass(frozen=True)
class Weights:
    """The weights in a folder of a component.

    Attributes:
        tensors: name to shape, dtype and place.
        files: name to the file that holds it.
        variant: the one to load ("fp16"), or None for the plain files.
    """

    tensors: Mapping[str, TensorInfo]
    files: Mapping[str, Path]
    variant: str | None = None

    @property
    def numel(self) -> int:
        """Numbers in all tensors."""
        return sum(math.prod(info.shape) for info in self.tensors.values())


def weight_files(folder: Path, stem: str) -> Weights:
    """Find the safetensors files that a library would load, and check their headers.

    Args:
        stem: "model" for transformers, "diffusion_pytorch_model" for diffusers.

    Raises:
        InputError: there are none, or one is damaged, cut short or missing; names the file.
    """
    names = {path.name for path in folder.iterdir()}
    whole, index = f"{stem}.safetensors", f"{stem}.safetensors.index.json"
    variant = None
    if not names & {whole, index}:
        found = re.compile(rf"{stem}\.(\w+)\.safetensors|{stem}\.safetensors\.index\.(\w+)\.json").fullmatch
        variants = sorted({match[1] or match[2] for name in names if (match := found(name))})
        if not variants:
            pickled = any(name.endswith((".bin", ".pt", ".pth")) for name in names)
            raise InputError(
                f"{folder} holds no {whole}" + (", only pickled weights" if pickled else ""),
                hint="save it as safetensors" if pickled else "copy or download it again",
            )
        variant = "bf16" if "bf16" in variants else variants[0]
        whole, index = f"{stem}.{variant}.safetensors", f"{stem}.safetensors.index.{variant}.json"
    # If both exist, each library chooses differently, so both must be valid.
    parts = [folder / whole] if whole in names else []
    if index in names:
        parts += [folder / name for name in dict.fromkeys(read_index(folder / index).values())]
    tensors: dict[str, TensorInfo] = {}
    files: dict[str, Path] = {}
    for part in parts:
        for name, info in read_header(part).tensors.items():
            tensors[name], files[name] = info, part
    return Weights(tensors, files, variant)


def check_size(model: torch.nn.Module, weights: Weights, where: str) -> None:
    """Refuse a config whose model is far larger than its weights, before a library fills it with random numbers.

    Args:
        model: built from the config on the meta device.

    Raises:
        InputError: says how many numbers each has.
    """
    numel = sum(parameter.numel() for parameter in model.parameters())
    if numel > 2 * weights.numel + 1_000_000:
        raise InputError(
            f"{where} describes a model of {numel:,} numbers, and its weights have {weights.numel:,}",
            hint="they are not of one model; copy or download it again",
        )


def check_loaded(info: Mapping[str, Any], where: str) -> None:
    """Refuse a model if a library filled a part of it with random numbers.

    Args:
        info: what `from_pretrained(..., output_loading_info=True)` gives.

    Raises:
        InputError: names the first tensor that the files lack, or have in another shape.
    """
    if missing := sorted(map(str, info.get("missing_keys") or ())):
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise InputError(
            f"{where} lacks the tensor {shown(missing[0])}{more}", hint="copy or download it again"
        )
    for entry in sorted(info.get("mismatched_keys") or (), key=str):
        name, stored, wanted = entry
        raise InputError(
            f"{where}: {shown(str(name))} has the shape {tuple(stored)} where its config needs {tuple(wanted)}"
        )
    if errors := info.get("error_msgs"):
        raise InputError(f"{where}: {shown(str(errors[0]))}")
