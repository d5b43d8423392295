"""`eval dpg --protocol official` against the official script, told again."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sanactl.errors import InputError
from sanactl.files.images import write_png
from sanactl.scoring.metrics.dpg import Dpg
from tests.scoring.answerers import Coins, is_yes
from tests.scoring.dpg_tables import Row, row, write_table

# The official script, told again: what its loops compute, from a table and a folder of grids.


def as_the_script(rows: list[Row], files: list[Path], side: int) -> tuple[float | None, dict[str, float]]:
    """(100 x the mean, 100 x the mean of each category by name); categories of both levels."""
    table: dict[str, dict[int, tuple[list[int], str, str]]] = {}
    last_id = None
    for line in rows[1:]:
        if line["item_id"] != last_id:
            table[line["item_id"]] = {}
        last_id = line["item_id"]
        table[last_id][int(line["proposition_id"])] = (
            [int(part) for part in line["dependency"].split(",")],
            line["tuple"],
            line["question_natural_language"],
        )
    means: list[float] = []
    values: dict[str, list[float]] = defaultdict(list)
    corners = [(0, 0), (side, 0), (0, side), (side, side)]
    for file in files:
        try:
            questions = table[file.name.split(".")[0]]
            grid, each = Image.open(file), []
            for x, y in corners:
                part = grid.crop((x, y, x + side, y + side))
                score = {
                    q: float(is_yes(np.asarray(part)[0, 0], text)) for q, (_, _, text) in questions.items()
                }
                as_given = dict(score)
                for q, (parents, _, _) in questions.items():
                    for parent in (p for p in parents if p != 0):
                        if score[parent] == 0:
                            score[q] = 0.0
                            break
                each.append(sum(score.values()) / len(score))
        except (KeyError, OSError):
            continue
        means.append(sum(each) / 4)
        for q, (_, about, _) in questions.items():
            category = about.split("(")[0].strip()
            values[category].append(as_given[q])
            values[category.split("-")[0].strip()].append(as_given[q])
    whole = 100 * float(np.mean(means)) if means else None
    return whole, {name: 100 * float(np.mean(found)) for name, found in values.items()}


def random_rows(rng: np.random.Generator, items: list[str]) -> list[Row]:
    """Rows with several parents, chains in any order, absent parents, repeated numbers and scattered items."""
    kinds = ("entity - whole", "entity - part", "attribute - color", "relation - spatial", "global - ")
    rows = []
    for item in items:
        count = int(rng.integers(1, 7))
        for number in rng.permutation(count) + 1:
            others = [int(n) for n in rng.integers(0, count + (rng.random() < 0.1), rng.integers(1, 4))]
            depends = ",".join(str(o) for o in others if o != number) or "0"
            kind = kinds[rng.integers(len(kinds))]
            rows.append(row(item, int(number), depends, kind, f"{item} {number} {rng.integers(9)}?"))
    if rng.random() < 0.5:
        rows.append(rows[rng.integers(len(rows))])  # of an item whose rows stand elsewhere
    if len(rows) > 1 and rng.random() < 0.5:
        rows.insert(2, dict(rows[1], question_natural_language="again?"))
    return rows


def test_official_scores_are_those_of_the_script(coins: Coins, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dropped = scored = 0
    for trial in range(60):
        names = [f"item{number}" for number in range(1, int(rng.integers(2, 8)))]
        rows = random_rows(rng, names)
        folder = tmp_path / str(trial)
        folder.mkdir()
        files, padding = [folder / f"{name}.png" for name in names], int(rng.integers(2)) * 2
        for file in files:
            pixels = rng.integers(0, 256, (6 + 3 * padding, 6 + 3 * padding, 3), dtype=np.uint8)
            write_png(pixels, file)
        if rng.random() < 0.2:
            files[-1].write_bytes(b"no image")
        table = write_table(folder / "table.csv", rows)
        metric = Dpg(table, "coins", protocol="official", resolution=3, answers="off")
        records = [{"kind": "image", "path": str(f), "prompt": ""} for f in files]
        whole, parts = as_the_script(rows, files, 3)
        if whole is None:
            with pytest.raises(InputError, match="no image could be scored by the official rules"):
                list(metric.evaluate(records))
            continue
        *images, score = metric.evaluate(records)
        assert score["value"] == pytest.approx(whole, abs=1e-3)
        assert {n: t["value"] for n, t in score["tasks"].items()} == pytest.approx(parts, abs=1e-3)
        assert score["prompts"] + score["left_out"] == len(images) == len(names)
        dropped += score["left_out"]
        scored += score["prompts"]
    assert dropped > 20 < scored
