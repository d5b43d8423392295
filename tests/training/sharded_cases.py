"""Runs of `finetune` on one process or, under torchrun, on several; `test_sharded` compares their results.

Each FOLDER/NAME of the command line is a run: its options are in RUNS, its result is FOLDER/NAME.st. FOLDER/NAME@2 stops
after step 2, with its state saved; the same run in the same folder goes on.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sanactl.checkpoint.open import open_checkpoint
from sanactl.data import open_training_data
from sanactl.training.choices import finetune_settings, reading_settings
from sanactl.training.finetune import finetune

COMMON: dict[str, Any] = {
    "steps": 3,
    "batch_size": 5,
    "lr": 1e-4,
    "warmup": 1,
    "clip": 0.5,
    "precision": "fp32",
}
RUNS: dict[str, dict[str, Any]] = {
    # Uneven shares of a batch, in uneven parts: 3 images in 2 parts, and 2 images in 2.
    "adamw": {"optimizer": "adamw", "accumulate": 2, "ema": 0.9, "weight_decay": 0.1},
    "came8bit": {"optimizer": "came8bit", "gradient_checkpointing": True, "ema": 0.5},
    "came": {"optimizer": "came"},
    # 3 parts of one process, 2 of the other.
    "lora": {"optimizer": "adamw", "lora": 3, "accumulate": 3},
    "teacher": {"optimizer": "came8bit", "precision": "bf16"},
}


def run(name: str, start: Path, folder: Path, *, fsdp: bool, stop: int = 0) -> None:
    """One run, until its end or until step `stop`."""
    checkpoint = open_checkpoint(start)
    settings = finetune_settings(checkpoint, **{**COMMON, **RUNS[name]}, fsdp=fsdp)
    data = open_training_data(None, reading_settings(checkpoint, settings))

    def on_step(point: dict[str, Any]) -> None:
        if point["step"] == stop:
            raise KeyboardInterrupt

    teacher = open_checkpoint(start.with_name("teacher.st")) if name == "teacher" else None
    try:
        finetune(checkpoint, data, settings, target=folder / f"{name}.st", teacher=teacher, on_step=on_step)
    except KeyboardInterrupt:
        assert stop


if __name__ == "__main__":
    begin, *wanted = sys.argv[1:]
    for each in wanted:
        where, _, last = each.partition("@")
        run(Path(where).name, Path(begin), Path(where).parent, fsdp=True, stop=int(last or 0))
