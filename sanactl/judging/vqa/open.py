"""Opening a model that answers questions, by what its name and its config say it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.files.paths import user_path
from sanactl.judging.options import read_options
from sanactl.scoring.questions.protocol import Answerer

__all__ = ["model_folder", "open_model"]

# Of a repository on the Hub: no other formats of the same weights.
_NEEDED = ["*.json", "*.txt", "*.safetensors", "*.jinja", "*.model"]
_SPARE = ["original/*", "onnx/*", "openvino/*"]
# VQA models of transformers that are no chat models, by their config's model_type.
CLASSES = ("vilt", "blip")


def open_model(
    spec: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Answerer:
    """A model that answers questions. It is loaded when the first question comes.

    Args:
        spec: a folder, a Hub id, `nvila:PATH`, `vlm:PATH`, or `http(s)://host[:port]/v1#model`.
        device, dtype: of the model; None for its own choice.
        options: those of the judge of this kind (docs/judges.md), as text, but its dialogue.

    Raises:
        UsageError: there is no such device, dtype or option.
        InputError: there is no such model.
    """
    given: dict[str, Any] = dict(options or {})
    if re.match("https?://", spec, re.IGNORECASE):
        from sanactl.judging.vqa.server import ServerAnswers

        named = {"device": device, "dtype": dtype}
        given |= {name: value for name, value in named.items() if value is not None}  # refused: it has none
        return ServerAnswers(spec, **read_options(ServerAnswers, given, "a server"))
    family, _, rest = spec.partition(":")
    if family not in ("nvila", "vlm"):
        family, rest = "vlm", spec
    folder, label = model_folder(rest)
    from sanactl.model.conditioning import pick_device
    from sanactl.model.loading import resolve_dtype

    place = pick_device(device)
    kind = resolve_dtype(dtype, place)
    if family == "vlm" and _model_type(folder) in CLASSES:
        from sanactl.judging.vqa.classes import VqaClassAnswers

        read_options(VqaClassAnswers, given, "VQA")
        return VqaClassAnswers(folder, label, place, kind)
    from sanactl.judging.vqa.vlm import VlmAnswers

    opener = VlmAnswers.opener(family)
    known = read_options(opener, given, family)
    return VlmAnswers(opener, folder, label, place, kind, known)


def _model_type(folder: Path) -> str:
    from sanactl.model.guard import read_config

    return str(read_config(folder).get("model_type"))


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
