"""Small sets in SANA's data format, and image records, as tests read them."""

from __future__ import annotations

import json
from typing import Any

from tests.layouts import png, tar, write

COLORS = ("red", "blue", "green", "purple", "orange", "yellow")
# In words that the built-in text encoder knows.
PROMPTS = [f"a photo of a {color} circle" for color in COLORS]
LONGS = [f"a photo of a {color} square" for color in COLORS]
VILAS = [f"a photo of a {color} triangle" for color in COLORS]
LONG, VILA = "_InternVL2-26B", "_VILA1-5-13B"


def sana(sides: dict[str, Any] | None = None) -> None:
    """Two shards of three images; `sides` by suffix, {key: ...} for all shards in one."""
    folder, listed = "set", []
    for shard in range(2):
        members: dict[str, bytes | str | None] = {}
        for i in range(3 * shard, 3 * shard + 3):
            members[f"{i:05d}.png"] = png(i)
            members[f"{i:05d}.json"] = json.dumps({"prompt": PROMPTS[i], "width": 16, "height": 16})
        tar(f"{folder}/{shard:03d}.tar", members)
        listed.append({"url": f"{shard:03d}.tar", "nsamples": 3})
        keys = {f"{i:05d}" for i in range(3 * shard, 3 * shard + 3)}
        for suffix, side in (sides or {}).items():
            mine = {key: said for key, said in side.items() if key in keys}
            write(f"{folder}/{shard:03d}{suffix}.json", json.dumps(mine))
    index(folder, *listed)


def index(folder: str, *shards: Any, **more: Any) -> None:
    write(f"{folder}/wids-meta.json", json.dumps({"wids_version": 1, "shardlist": list(shards), **more}))


def scored() -> None:
    """Rows with two good captions, with good ones of both files, with none good, with none at all."""
    sana(
        {
            LONG: {f"{i:05d}": {"InternVL2-26B": LONGS[i]} for i in (0, 1, 2, 4, 5)},
            VILA: {f"{i:05d}": {"VILA1-5-13B": VILAS[i]} for i in (0, 1, 2)},
            f"{LONG}_clip_score": {
                "00000": {"InternVL2-26B": "27.1037"},
                "00001": {"InternVL2-26B": "24.9999", "prompt": 30},
                "00002": {"InternVL2-26B": 21.5},
                "00003": {"InternVL2-26B": "40"},  # has no such caption
            },
            f"{VILA}_clip_score": {
                "00000": {"VILA1-5-13B": "25.0"},
                "00001": {"VILA1-5-13B": "26"},
                "00002": {"VILA1-5-13B": "24"},
            },
            "_prompt_clip_score": {
                "00000": {"prompt": "26.7331"},
                "00001": {"prompt": "27"},
                "00002": {"prompt": "22"},
                "00004": {"prompt": "21.99"},
                "00005": {"prompt": "nan"},
            },
        }
    )


def records(**more: Any) -> list[dict[str, Any]]:
    rows = []
    for i in range(4):
        write(f"{i}.png", png(i))
        rows.append({"kind": "image", "path": f"{i}.png", "prompt": PROMPTS[i], **more})
    return rows
