"""The dataset card: metadata that the Hub reads, and how the images were made; nothing of this machine's paths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard

from sanactl.checkpoint.open import open_checkpoint
from sanactl.exporting.columns import public
from sanactl.exporting.history import commands_before
from sanactl.records.journal import Journal, Run
from tests.exporting.records import write_records
from tests.program import Program


def test_the_metadata_are_those_of_the_hub(sanactl: Program, place: Path) -> None:
    records = write_records(place)
    sanactl("export", "records.jsonl", "-o", "my set", "--shard-size", "3", "--to", "webdataset")
    card = DatasetCard.load("my set/README.md")
    data = card.data.to_dict()
    assert data["task_categories"] == ["text-to-image"] and data["size_categories"] == ["n<1K"]
    assert data["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": ["*.tar"]}]}
    ]
    assert "license" not in data and {"sana", "sanactl"} <= set(data["tags"])
    assert [f["name"] for f in data["dataset_info"]["features"]] == [
        "jpg",
        "png",
        "__key__",
        "__url__",
        "json",
        "txt",
    ]
    text = card.text
    size = sum(Path(r["path"]).stat().st_size for r in records)
    assert f"7 images ({size / 1000:.3g} kB) in 3 shards" in text
    assert "| counting | 4 |" in text and "| colors | 3 |" in text
    assert "7 by the checkpoint tiny.st (`sha256:12`)" in text
    assert "hf upload OWNER/NAME 'my set' --repo-type dataset" in text
    assert f"({2**53 - 7} to {2**53 - 1})" in text
    assert "/home" not in text and str(place) not in text


def test_how_it_was_made(sanactl: Program, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands that led to the records in their order, filters among them, and the lineage of the checkpoint."""
    digest = open_checkpoint("tiny.st").digest
    records = [{**r, "checkpoint": "tiny.st", "digest": digest} for r in write_records(place)]
    Path("images.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    sampled = Run("sample", ["sample", "tiny.st", "-n", "7"], "0")
    sampled.outputs.append({"path": "images.jsonl", "kind": "image"})
    Journal().append(sampled, 1.0)
    some = ["filter", "images.jsonl", "--where", "clip_score > 21", "-o", "some.jsonl"]
    monkeypatch.setattr("sys.argv", ["sanactl", *some])
    passed = sanactl(*some)
    sanactl("filter", "images.jsonl", "--correct", "-o", "others.jsonl")  # not one of the commands
    sanactl("export", "some.jsonl", "-o", "set")
    # The records of a pipe are those that a command of this folder wrote last.
    sanactl("export", "-o", "piped", stdin="".join(json.dumps(r) + "\n" for r in passed))
    for folder in ("set", "piped"):
        card = Path(folder, "README.md").read_text()
        made = card[card.index("The commands that") :]
        assert [line for line in made.splitlines() if line.startswith("sanactl ")] == [
            "sanactl sample tiny.st -n 7",
            "sanactl filter images.jsonl --where 'clip_score > 21' -o some.jsonl",
        ]
        assert f"{len(passed)} by the checkpoint tiny.st (`{digest}`):" in card
        assert "4. prune blocks=0,4,9" in card
    entry = next(Journal().newest_first())
    assert entry["command"] == "export" and entry["outputs"][0]["kind"] == "dataset"
    assert entry["outputs"][0]["images"] == len(passed) and entry["key"]


def test_commands_are_shown_without_folders_and_secrets(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    (tmp_path / ".sanactl").mkdir()
    entries: list[dict[str, Any]] = [
        {"command": "sample", "argv": ["sample", "/home/me/base.st", "--prompt", "a/b and /x", "-o", "/tmp/me/out"],
         "inputs": [{"path": "/home/me/base.st"}], "outputs": [{"path": "a.jsonl", "kind": "image"}]},
        {"command": "judge", "argv": ["judge", "--api-key", "hunter2", "--model", "http://host/v1#m"],
         "inputs": [{"path": "a.jsonl"}], "outputs": [{"path": "b.jsonl", "kind": "image"}]},
        {"command": "other", "argv": ["other"], "inputs": [], "outputs": [{"path": "c.jsonl", "kind": "image"}]},
    ]  # fmt: skip
    journal.path.write_text("".join(json.dumps(e) + "\n" for e in entries))
    first, second = commands_before("b.jsonl", {}, journal)
    assert first == "sanactl sample base.st --prompt 'a/b and /x' -o out"
    assert "hunter2" not in second and "http://host/v1#m" in second


def test_fields_lose_full_paths_alone() -> None:
    record = {"kind": "image", "path": "/a/b.png", "prompt": "p", "judge": "/models/my judge", "reason": "/imagine a cat",
              "checkpoint": "runs/base.st", "verdicts": [{"judge": "C:\\models\\x"}], "seed": 1, "none": None}  # fmt: skip
    assert public(record, ("prompt",)) == {
        "judge": "my judge",
        "reason": "/imagine a cat",
        "checkpoint": "runs/base.st",
        "verdicts": [{"judge": "x"}],
        "seed": 1,
    }
