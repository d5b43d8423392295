"""The settings objects are the one place of a command's settings: each is documented, and is what the options default to."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields, replace
from typing import Any

import pytest

from sanactl.cli.encode import encode
from sanactl.cli.finetune import finetune
from sanactl.data.encode_plan import EncodeSettings
from sanactl.data.settings import DataSettings
from sanactl.training.settings import FinetuneSettings

# Options whose default depends on the checkpoint or the device, or whose name is another than the setting's.
FOUND_LATER = {"learning_rate", "clip", "precision", "height", "width", "max_sequence_length",
               "complex_human_instruction", "multiple", "once"}  # fmt: skip
OTHER_NAMES = {"new_blocks_only": "train_new_blocks_only"}


@pytest.mark.parametrize("settings", [FinetuneSettings, DataSettings, EncodeSettings])
def test_every_setting_is_documented(settings: Any) -> None:
    documented = re.findall(r"^        (\w+): ", settings.__doc__, re.M)
    assert documented == [field.name for field in fields(settings)]


@pytest.mark.parametrize("settings", [FinetuneSettings(), DataSettings()])
def test_options_of_finetune_default_to_the_settings(settings: Any) -> None:
    options = inspect.signature(finetune).parameters
    for field in fields(settings):
        if field.name not in FOUND_LATER:
            name = OTHER_NAMES.get(field.name, field.name)
            assert options[name].default == getattr(settings, field.name), name


def test_encode_reads_data_by_the_same_defaults() -> None:
    options = inspect.signature(encode).parameters
    for name in ("captions", "buckets", "streaming", "max_bad"):
        assert options[name].default == getattr(DataSettings(), name)


def test_what_decides_the_steps_is_the_key() -> None:
    """What changes no step is not in it, and a state goes on with another; what belongs to the machine is in no lineage."""
    settings = FinetuneSettings()
    for free in ({"workers": 3}, {"accumulate": 4}, {"save_every": 7}, {"device": "cpu"}, {"resume": False}):
        assert replace(settings, **free).deciding() == settings.deciding()
    for deciding in ({"steps": 7}, {"ema": 0.5}, {"seed": 1}, {"scheme": "zero"}, {"height": 32}):
        assert replace(settings, **deciding).deciding() != settings.deciding()
    names = {field.name for field in fields(settings)}
    assert names - set(settings.arguments()) == {"device", "tracker", "resume"}
