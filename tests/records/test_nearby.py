"""A record file that is read from another folder than the one it was written in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sanactl.records.records import load_records
from tests.program import Program


def test_images_are_found_from_another_folder(
    sanactl: Program, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sanactl(
        "sample",
        "tiny.st",
        "--prompts",
        "shapes",
        "--limit",
        "1",
        "-n",
        "2",
        "--steps",
        "1",
        "-o",
        "drawn/first",
    )
    before = sanactl("eval", "geneval", "drawn/first/images.jsonl", "-o", "here.jsonl")
    elsewhere = place / "else" / "where"
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    after = sanactl("eval", "geneval", "../../drawn/first/images.jsonl", "-o", "there.jsonl")
    paths = [r["path"] for r in after if r["kind"] == "image"]
    assert paths == [str(place / f"drawn/first/00000/samples/000{i}.png") for i in range(2)]
    assert [r.get("correct") for r in after] == [r.get("correct") for r in before]


def test_paths_that_name_something_here_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "a.png").touch()
    (tmp_path / "a.png").touch()
    absolute = str(folder / "a.png")
    records = [{"kind": "image", "path": path, "prompt": "a star"} for path in ("a.png", "b.png", absolute)]
    (folder / "r.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    monkeypatch.chdir(tmp_path)
    assert [r["path"] for r in load_records(Path("run/r.jsonl"))] == ["a.png", "b.png", absolute]
    (tmp_path / "a.png").unlink()
    assert [r["path"] for r in load_records(Path("run/r.jsonl"))] == [absolute, "b.png", absolute]


def test_another_run_of_the_same_name_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images were moved away, and a folder above has images of the same name."""
    here = tmp_path / "a" / "b"
    here.mkdir(parents=True)
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "0.png").touch()
    (here / "r.jsonl").write_text('{"kind": "image", "path": "samples/0.png", "prompt": "a star"}\n')
    monkeypatch.chdir(here)
    assert [r["path"] for r in load_records(Path("r.jsonl"))] == ["samples/0.png"]
    assert [r["path"] for r in load_records(here / "r.jsonl")] == ["samples/0.png"]
