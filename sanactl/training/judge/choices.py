"""The settings of a judge's training from options, where the two kinds of judges share some and differ in others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sanactl.errors import UsageError
from sanactl.training.judge.settings import TuningSettings

__all__ = ["check_kind", "tuning_settings"]

# Options of both kinds; None is each kind's own default.
_SHARED = ("steps", "batch_size", "learning_rate", "save_every", "seed", "resume")
# Options of the built-in world's judge alone, with their defaults.
_BUILTIN = {"rendered": False, "start": None, "warmup_steps": 2000, "pool_size": 24_000}
_NAMES = {"lr": "learning_rate"}


def check_kind(model: str | None, options: Mapping[str, Any]) -> None:
    """Refuses options of the other kind of judge.

    Args:
        model: the model to fine-tune; None for the built-in world's judge.
        options: by their names on the command line.

    Raises:
        UsageError: names the first one.
    """
    own = {f.name: f.default for f in fields(TuningSettings) if f.name not in _SHARED}
    foreign = _BUILTIN if model is not None else {**own, "precision": None, "held_out": None}
    for name, default in foreign.items():
        if options.get(name, default) != default:
            option = {"merge": "no-merge", "balance": "no-balance"}.get(name, name.replace("_", "-"))
            kind = "the built-in world's judge, and excludes --model" if model is not None else "--model VLM"
            raise UsageError(f"--{option} is for {kind}")


def tuning_settings(options: Mapping[str, Any]) -> TuningSettings:
    """The settings of a model's training.

    Args:
        options: by their names on the command line; None counts as not given, and others are ignored.

    Raises:
        UsageError: as of `TuningSettings.check`, or a precision that there is not.
    """
    from sanactl.training.choices import precision_name

    known = {f.name for f in fields(TuningSettings)}
    given = {_NAMES.get(name, name): value for name, value in options.items() if value is not None}
    if given.get("precision") == "fp16":
        raise UsageError(
            "--precision fp16 needs a scale of the loss, which this training has not", hint="use bf16"
        )
    given["precision"] = precision_name(given.get("precision"), given.get("device"))
    settings = TuningSettings(**{name: value for name, value in given.items() if name in known})
    settings.check()
    return settings
