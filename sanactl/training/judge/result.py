"""What a judge's training writes: a folder that `judge --model` takes, whole or as adapters, and what it says of itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError
from sanactl.files.atomic import atomic_dir, check_target
from sanactl.files.paths import utf8_name
from sanactl.judging.backends.adapters import ABOUT
from sanactl.judging.backends.labels import LABELS
from sanactl.judging.shipped import CALIBRATION
from sanactl.records.records import dumps
from sanactl.training.outputs import check_beside

if TYPE_CHECKING:
    from sanactl.training.judge.trained import TrainedModel

__all__ = ["base_identity", "check_judge_target", "is_judge_result", "write_judge"]

_RUN = 16  # digits of a run's key
# Of a model's folder, what is not its processor's.
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".py")
_OWN = ("config.json", "generation_config.json", "README.md", CALIBRATION, ABOUT)


def base_identity(place: str) -> Any:
    """What a model is, wherever it lies: its files' digests, or its Hub id with the commit.

    Raises:
        InputError: its config cannot be read.
    """
    from sanactl.judging.backends.vlm_load import files_of
    from sanactl.model.guard import reading

    if Path(place).is_dir():
        return files_of(Path(place))
    from transformers import AutoConfig

    with reading(place):
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    return [place, getattr(config, "_commit_hash", None)]


def check_judge_target(target: Path, *, force: bool, tracker: str | None) -> None:
    """Refuses a target that could not be written, before images are read. One that this command has written may be this
    run's own result, which is asked later.

    Raises:
        OutputExistsError: something else is there, and `force` is false.
        UsageError, SanactlError: as of `check_beside`.
    """
    check_target(target, force or (target / ABOUT).is_file())
    check_beside(target, force=force, tracker=tracker)


def is_judge_result(target: Path, key: str) -> bool:
    """Whether the target is there and was made by the run of this key, as its own file says."""
    try:
        about = json.loads((target / ABOUT).read_text(encoding="utf-8"))
        return bool(about["run"] == key[:_RUN])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False


def write_judge(
    target: Path,
    trained: TrainedModel,
    place: str,
    *,
    merge: bool,
    key: str,
    about: Mapping[str, Any],
    force: bool,
) -> None:
    """Writes the judge's folder, whole or not at all.

    The weights have the dtype of those that training started from. Adapters are added to these in fp32, so that a
    quantized base loses nothing.

    Args:
        place: the folder or Hub id that was trained.
        merge: write the whole model; else, for adapters, a folder of these that names its base.
        key: of the run.
        about: what else `train-judge.json` says; `labels` also goes into the config.

    Raises:
        OutputExistsError, SanactlError: as of `atomic_dir`.
    """
    from sanactl.model.saving import rewrite_weights

    files = _processor_files(place)
    with atomic_dir(target, force=force) as folder:
        for file in files:
            shutil.copyfile(file, folder / file.name)
        with utf8_name(folder) as name:
            if merge or not trained.lora:
                model = _whole(trained, place)
                if about.get("labels"):
                    model.config.update({LABELS: about["labels"]})
                model.save_pretrained(name)
            else:
                config = trained.model.peft_config["default"]
                config.base_model_name_or_path = str(Path(place).resolve()) if Path(place).is_dir() else place
                trained.model.save_pretrained(name)
        rewrite_weights(folder)
        (folder / ABOUT).write_text(dumps({"run": key[:_RUN], **about}) + "\n", encoding="utf-8")


def _whole(trained: TrainedModel, place: str) -> Any:
    """A copy of the model that was started from, in its own dtype, with what was learned."""
    import torch

    from sanactl.judging.backends.vlm_load import load_vlm

    model, _ = load_vlm(place, device=torch.device("cpu"), dtype=_dtype_of(place))
    trained.write_into(model)
    return model


def _dtype_of(place: str) -> Any:
    """The dtype of a model's files, by its config; fp32 where it says nothing."""
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    for part in (config, config.get_text_config()):
        found = getattr(part, "dtype", None)
        found = getattr(torch, found, None) if isinstance(found, str) else found
        if isinstance(found, torch.dtype) and found.is_floating_point:
            return found
    return torch.float32


def _processor_files(place: str) -> list[Path]:
    """The files of a model's folder that its processor is read from. They are copied: some processors cannot be saved."""
    folder = Path(place)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        from sanactl.model.guard import reading

        with reading(place):
            patterns = ["*.json", "*.jinja", "*.txt", "*.model", "LICENSE*"]
            folder = Path(snapshot_download(place, allow_patterns=patterns))
    found = [
        p
        for p in sorted(folder.iterdir())
        if p.is_file()
        and p.suffix.lower() not in _WEIGHTS
        and p.name not in _OWN
        and not p.name.startswith(".")
        and not p.name.endswith(".index.json")
    ]
    if not found:
        raise InputError(f"{place}: no processor in it")
    return found
