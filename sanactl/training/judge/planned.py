"""What `train-judge --model` would do: its images, its steps, and the memory that stays from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import UsageError
from sanactl.training.judge.data import JudgeData
from sanactl.training.judge.settings import TuningSettings

if TYPE_CHECKING:
    from sanactl.records.records import Record
    from sanactl.training.judge.trained import TrainedModel

__all__ = ["kept_memory", "training_plan"]

# Bytes of a weight in 4 bits with bitsandbytes' NF4: half a byte, and a scale of 4 bytes for each 64 weights.
_NF4 = 0.5 + 4 / 64


def training_plan(place: str, data: JudgeData, settings: TuningSettings, target: Path) -> Record:
    """A record of what a run would do. The model's config is read, and not its weights.

    Args:
        place: of the model (`sanactl.training.judge.tune.model_to_train`).
        data: labelled images.
        settings: how to train.
        target: the folder that the run would write.

    Returns:
        a `score` record with `metric` "train_plan": counts of images, prompts and steps, and `training_memory` in bytes,
        without activations.

    Raises:
        UsageError: settings that exclude each other.
        InputError: the model's config cannot be read, or the part that is to be trained cannot be told from the rest.
    """
    settings = settings.planned(len(data.train))
    settings.check()
    trained, quantized = _on_paper(place, settings)
    kept = kept_memory(trained, settings)
    if settings.quantize:
        kept["weights"] -= round((4 - _NF4) * quantized)
    kept["total"] = kept["weights"] + kept["gradients"] + kept["optimizer"]
    return {
        "kind": "score",
        "metric": "train_plan",
        "planned": True,
        "judge": str(target),
        "base": place,
        **_counts(data, data.train, ""),
        **_counts(data, data.held_out, "held_out_"),
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "optimizer": settings.optimizer,
        "trained_parameters": sum(p.numel() for p in trained.parameters()),
        "parameters": sum(p.numel() for p in trained.model.parameters()),
        "training_memory": kept,
    }


def kept_memory(trained: TrainedModel, settings: TuningSettings) -> dict[str, int]:
    """Bytes that stay from step to step: `weights` of the whole model, `gradients` and `optimizer`."""
    from sanactl.surgery.memory import training_memory

    kept = training_memory({name: tuple(p.shape) for name, p in trained.named}, settings.optimizer)
    weights = sum(p.numel() * p.element_size() for p in trained.model.parameters())
    return {"weights": weights, "gradients": kept["gradients"], "optimizer": kept["optimizer"]}


def _counts(data: JudgeData, records: Sequence[Record], prefix: str) -> dict[str, int]:
    right = sum(data.truth(record) for record in records)
    return {
        f"{prefix}images": len(records),
        f"{prefix}right": right,
        f"{prefix}wrong": len(records) - right,
        f"{prefix}prompts": len({str(record["prompt"]) for record in records}),
    }


def _on_paper(place: str, settings: TuningSettings) -> tuple[TrainedModel, int]:
    """The model without memory for its weights, and how many of them would be in 4 bits."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    from sanactl.model.guard import reading
    from sanactl.model.loading import quiet_libraries
    from sanactl.training.judge.trained import TrainedModel

    quiet_libraries()
    with reading(place):
        config: Any = AutoConfig.from_pretrained(place, trust_remote_code=False)
        if type(config) not in AutoModelForImageTextToText._model_mapping:
            raise UsageError(
                f"{place} is no image-text-to-text model",
                hint="name the folder or Hub id of one that has a chat template",
            )
        half = bool(settings.lora) and settings.precision == "bf16" and not settings.quantize
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(
                config, dtype=torch.bfloat16 if half else torch.float32, trust_remote_code=False
            )
    language = model.get_decoder()
    linear = [m for m in language.modules() if isinstance(m, torch.nn.Linear)] if language is not None else []
    quantized = sum(m.weight.numel() for m in linear) if settings.quantize else 0
    # The base is counted as it is before it is quantized.
    return TrainedModel(model, replace(settings, quantize=""), place), quantized
