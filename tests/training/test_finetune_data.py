"""`finetune --data`: folders with captions, image records, and data that will not do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from sanactl.data import TableSource, open_training_data
from sanactl.files.images import write_png
from tests.program import Program


def shots(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    lines = []
    for i in range(count):
        write_png(np.full((64, 80, 3), 40 * i, np.uint8), folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"shade {i}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def test_a_folder_with_captions(place: Path, sanactl: Program) -> None:
    source = open_training_data(str(shots(place / "shots")), seed=0, height=64, width=64)
    assert isinstance(source, TableSource)
    images, captions = source.batch(range(6))
    assert images.shape == (6, 64, 64, 3)
    assert sorted(captions) == sorted([f"shade {i}" for i in range(3)] * 2)
    for image, caption in zip(images, captions, strict=True):
        assert (image == 40 * int(caption[-1])).all()
    sanactl("finetune", "tiny.st", "--data", "shots/", "--steps", "1", "-b", "2")
    identity = source.identity
    write_png(np.zeros((64, 64, 3), np.uint8), place / "shots/0.png")
    assert open_training_data("shots", seed=0, height=64, width=64).identity != identity


def test_image_records_from_a_pipe_or_a_file(place: Path, sanactl: Program) -> None:
    shots(place / "shots")
    lines = "".join(
        json.dumps({"kind": "image", "path": f"shots/{i}.png", "prompt": f"shade {i}"}) + "\n"
        for i in range(3)
    )
    (place / "r.jsonl").write_text(lines)
    sanactl("finetune", "tiny.st", "--steps", "1", "-b", "2", "-o", "a.st", stdin=lines)
    assert "3 image records" in sanactl.said
    sanactl("finetune", "tiny.st", "--data", "r.jsonl", "--steps", "1", "-b", "2", "-o", "b.st")
    sanactl("finetune", "tiny.st", "--data", "-", "--steps", "1", "-b", "2", "-o", "c.st", stdin=lines)
    assert len({Path(f"{x}.st").read_bytes() for x in "abc"}) == 1


def test_every_epoch_has_every_picture_in_a_new_order(place: Path) -> None:
    records = [{"kind": "image", "path": "x", "prompt": str(i)} for i in range(10)]
    source = open_training_data(None, records=records, seed=3, height=64, width=64)
    assert isinstance(source, TableSource)
    epochs = [[source.order.row(e * 10 + i) for i in range(10)] for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_data_that_will_not_do(place: Path, sanactl: Program) -> None:
    folder = shots(place / "shots")
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png", "label": 1}\n')
    assert "has images but no captions" in sanactl.fails(
        "finetune", "tiny.st", "--data", "shots", "--steps", "1"
    )
    assert "no such folder" in sanactl.fails("finetune", "tiny.st", "--data", "./gone", "--steps", "1")
    assert "gone.jsonl" in sanactl.fails("finetune", "tiny.st", "--data", "gone.jsonl", "--steps", "1")
    (place / "none.jsonl").write_text("")
    assert "no image records" in sanactl.fails("finetune", "tiny.st", "--data", "none.jsonl", "--steps", "1")
    assert "no image records" in sanactl.fails("finetune", "tiny.st", "--data", "-", "--steps", "1", stdin="")


def test_a_broken_picture_in_a_folder_is_named(place: Path, sanactl: Program) -> None:
    folder = shots(place / "shots")
    (folder / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert "1.png" in sanactl.fails("finetune", "tiny.st", "--data", "shots", "--steps", "1", "-b", "3")


def test_pictures_come_in_the_size_that_is_asked_for(place: Path) -> None:
    source = open_training_data(str(shots(place / "shots", 4)), height=32, width=32)
    assert isinstance(source, TableSource)
    images, _ = source.batch([0, 1])
    assert images.shape == (2, 32, 32, 3)
