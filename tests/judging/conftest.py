"""A judge that knows nothing, small enough to make anew: the real classes, random weights."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def judge_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sanactl.world.train_judge import new_judge

    folder = tmp_path_factory.mktemp("judges") / "small"
    model, processor = new_judge(seed=3, width=32, vision_layers=1, text_layers=2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
