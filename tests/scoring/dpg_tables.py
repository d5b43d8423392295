"""Tables of DPG-Bench's form, and pictures to ask about."""

from __future__ import annotations

import csv
from pathlib import Path

from sanactl.files.images import write_png
from sanactl.scoring.questions.dpg_file import COLUMNS
from sanactl.shapes.render import render
from sanactl.shapes.scene import Item, Scene

Row = dict[str, str]


def row(item: str, number: int, dependency: str, category: str, question: str, text: str = "a prompt") -> Row:
    broad, detailed = category.split(" - ")
    return {
        "item_id": item, "text": text, "keywords": "", "proposition_id": str(number), "dependency": dependency,
        "category_broad": broad, "category_detailed": detailed, "tuple": f"{category} (it, {number})",
        "question_natural_language": question,
    }  # fmt: skip


def write_table(path: Path, rows: list[Row]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["keywords", *COLUMNS])
        writer.writeheader()
        writer.writerows(rows)
    return path


def draw(path: Path, *items: tuple[str, str, float, float]) -> None:
    scene = Scene(tuple(Item(*item, 9 / 64) for item in items), (128, 128, 128))
    write_png(render(scene, 64), path)
