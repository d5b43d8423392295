"""Image records for exports: images of several folders with the same names, and fields whose types change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.pictures import picture

COUNT = 7
LATE = 6  # the first record with a field that the first five rows lack


def write_records(place: Path) -> list[dict[str, Any]]:
    """Writes images and `records.jsonl`; the records."""
    records = []
    for number in range(COUNT):
        image, text = picture(number)
        folder = place / f"{number:05d}" / "samples"
        folder.mkdir(parents=True)
        # The last but one is a JPEG; one is called .png and is none.
        kind = "JPEG" if number in (2, 5) else "PNG"
        path = folder / ("0000.jpg" if number == 5 else "0000.png")
        image.save(path, kind)
        record: dict[str, Any] = {
            "kind": "image",
            "path": str(path.relative_to(place)),
            "prompt": text,
            "prompt_id": str(number),
            "tag": "colors" if number % 2 else "counting",
            "seed": 2**53 - 1 - number,
            "checkpoint": "/home/somebody/runs/tiny.st",
            "digest": "sha256:12",
            "draft_path": "/home/somebody/x.png",
            "judge_score": 1 if number == 0 else number / 8,
            "clip_score": 20 + number / 3,
            "correct": number % 2 == 0,
            "include": [{"class": "star", "count": number + 1}, {"class": "a", "position": ["above", 0]}],
        }
        if number % 2:
            record["long"] = f"a longer text about {text}"
        if number >= LATE:
            record["late"] = "only here"
        records.append(record)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (place / "records.jsonl").write_text(lines)
    return records
