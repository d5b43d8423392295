"""The README's picture: what docs/draw_hero.py draws is what the records say."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sanactl.files.images import write_png

ROOT = Path(__file__).parents[2]


def records(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    chain = ("grown.st", "pruned-d10.st", "recovered-d10.st")
    for place, name in enumerate(("base.st", *chain)):
        for number in range(4):
            for index in range(2):
                path = folder / f"{place}-{number}-{index}.png"
                write_png(np.full((64, 64, 3), 40 * place + 20 * index, np.uint8), path)
                image = {
                    "kind": "image",
                    "path": path.name,
                    "prompt": f"prompt {number}",
                    "checkpoint": name,
                    "index": index,
                }
                judged = {"judge": "x", "rank": 1 - index, "samples": 2} if place == 3 else {}
                found.append({**image, "correct": index == 1, "tag": f"task_{number}", **judged})
        parents = [{"name": c, "digest": f"sha256:{c}"} for c in chain[: max(place - 1, 0)]]
        lineage = [{"command": "finetune", "parents": [p], "blocks": 10} for p in parents]
        known = {"path": name, "digest": f"sha256:{name}", "blocks": 10, "lineage": lineage}
        found.append({"kind": "checkpoint", **known})
        tasks = {"a": {"value": 0.5, "ci": None, "images": 8}}
        score = {"value": 0.5, "ci": [0.4, 0.6], "tasks": tasks, "prompts": 4, "checkpoint": name}
        found.append({"kind": "score", "metric": "geneval", "digest": f"sha256:{name}", **score})
    curve = [{"at": 1, "value": 0.5, "ci": None}, {"at": 2, "value": 0.9, "ci": [0.7, 1.0]}]
    found.append(
        {
            "kind": "score",
            "metric": "scaling",
            "curves": {"judge": curve},
            "checkpoint": "recovered-d10.st",
            "prompts": 4,
        }
    )
    return found


def test_it_shows_each_checkpoint_and_marks_the_winners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records(tmp_path)))
    target = tmp_path / "hero.png"
    monkeypatch.setattr("sys.argv", ["draw_hero.py", str(tmp_path), "-o", str(target)])
    names = runpy.run_path(str(ROOT / "docs/draw_hero.py"), run_name="__main__")
    picture = Image.open(target).convert("RGB")
    side, gap, label, top, line = (names[n] for n in ("SIDE", "GAP", "LABEL", "TOP", "LINE"))
    assert picture.width == label + 4 * (side + gap)
    # base, pruned, recovered, and the judge's choice: the second image of each prompt.
    shades = [40 * 0, 40 * 2, 40 * 3, 40 * 3 + 20]
    for row, shade in enumerate(shades):
        middle = top + row * (side + line + gap) + side // 2
        assert picture.getpixel((label + side // 2, middle)) == (shade,) * 3
        frame = picture.getpixel((label - 2, middle))
        assert (frame != (255, 255, 255)) == (row == 3)


def test_the_picture_is_small() -> None:
    assert (ROOT / "docs/images/hero.png").stat().st_size < 300_000
