"""`bench judge`: rows that are measured side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.judging.tiny_models import make
from tests.program import Program


def test_rows(tmp_path: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make("internvl", tmp_path / "internvl")
    few = ("--images", "5", "--rounds", "1", "-b", "4", "--device", "cpu")
    rows = sanactl("bench", "judge", "--model", str(folder), *few)
    assert [row["way"] for row in rows] == [
        "one by one",
        "batches of 4",
        "one by one, text before the image shared",
        "batches of 4, text before the image shared",
    ]
    assert rows[0]["value"] == 1 and all(row["images_per_second"] > 0 for row in rows)
    assert all(row["prefix_tokens"] >= 8 for row in rows)
    line = sanactl.fails("bench", "judge", "--model", "oracle", code=2)
    assert "oracle is no vision-language model that runs here" in line
