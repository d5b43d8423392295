"""A small labelled set whose rule a judge can learn: an image is right where it is light."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sanactl.files.images import write_png

PROMPTS = [f"a {color} {shape}" for color in ("red", "orange", "blue") for shape in ("square", "star", "heart", "circle")]  # fmt: skip


def labelled(folder: Path, each: int = 3) -> list[dict[str, Any]]:
    """Image records: of each prompt's images one or two are light. The prompts are in no evaluation set."""
    rng = np.random.default_rng(0)
    records = []
    for number, prompt in enumerate(PROMPTS):
        for index in range(each):
            light = index == 0 or (index == 1 and number % 3 == 0)
            pixels = rng.normal(205 if light else 50, 25, (48, 48, 3)).clip(0, 255).astype(np.uint8)
            path = folder / f"{number}-{index}.png"
            write_png(pixels, path)
            records.append({
                "kind": "image", "path": str(path), "prompt": f"{prompt} and four hearts", "correct": light,
                "detector": "shapes-9",
            })  # fmt: skip
    return records


def write_records(records: list[dict[str, Any]], path: Path) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path
