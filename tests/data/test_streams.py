"""Streams: read forwards, and the same wherever one begins."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from sanactl.data import TableSource, open_examples, open_training_data
from sanactl.data.streams import EndOfExamples
from sanactl.errors import InputError
from tests.pictures import picture, write_folder, write_tars
from tests.program import Program


def stream(reference: str, seed: int = 0, **options: Any) -> TableSource:
    source = open_training_data(reference, seed=seed, height=64, width=64, streaming=True, **options)
    assert isinstance(source, TableSource)
    return source


def test_a_resumed_run_goes_on_where_the_stream_was(place: Path) -> None:
    write_tars(place / "tars", 3, 4)
    whole = stream("tars")
    steps = [whole.batch(range(s * 5, s * 5 + 5)) for s in range(6)]  # two epochs and a half
    captions = [c for _, batch in steps for c in batch]
    assert sorted(captions[:12]) == sorted(captions[12:24])
    assert captions[:12] != captions[12:24]
    resumed = stream("tars")
    for s in (3, 4, 5):
        images, texts = resumed.batch(range(s * 5, s * 5 + 5))
        assert texts == steps[s][1] and (images == steps[s][0]).all()
    # Two processes share the positions of a step; one that goes back begins the stream again.
    parts = [stream("tars").batch(range(15 + rank, 20, 2))[1] for rank in (0, 1)]
    assert [parts[0][0], parts[1][0], parts[0][1], parts[1][1], parts[0][2]] == steps[3][1]
    assert resumed.batch(range(5))[1] == steps[0][1]
    assert stream("tars", seed=1).batch(range(12))[1] != captions[:12]


def test_a_stream_of_a_folder(place: Path) -> None:
    write_folder(place / "shots", 5)
    assert len(set(stream("shots").batch(range(5))[1])) == 5


def test_a_bad_picture_in_a_stream(place: Path) -> None:
    write_tars(place / "tars", 1, 6)
    tar = place / "tars/000.tar"
    data = tar.read_bytes()
    at = data.index(b"IDAT")  # of the first picture
    tar.write_bytes(data[: at + 8] + bytes(60) + data[at + 68 :])
    with pytest.raises(InputError, match=r"000\.tar, 00000.*--max-bad"):
        stream("tars").batch(range(6))
    source = stream("tars", max_bad=1)
    captions = source.batch(range(6))[1]
    assert len(source.skipped) == 1 and "00000" in source.skipped[0]
    assert len(set(captions)) == 5
    other = stream("tars", max_bad=1)
    assert [other.batch([p])[1][0] for p in range(6)] == captions


def cut_short(tar: Path, name: str) -> None:
    """Leaves half of one file of a tar."""
    with tarfile.open(tar) as old:
        files = [(member.name, old.extractfile(member)) for member in old]
        contents = [(known, file.read()) for known, file in files if file is not None]
    with tarfile.open(tar, "w") as new:
        for known, content in contents:
            kept = content[: len(content) // 2] if known == name else content
            member = tarfile.TarInfo(known)
            member.size = len(kept)
            new.addfile(member, io.BytesIO(kept))


def test_a_bad_picture_counts_once_in_all_epochs(place: Path, sanactl: Program) -> None:
    write_tars(place / "tars", 2, 3, "JPEG")
    cut_short(place / "tars/001.tar", "00004.jpeg")
    source = stream("tars", max_bad=1)
    said: list[str] = []
    source.announce(said.append)
    for step in range(6):  # three epochs
        source.batch(range(step * 3, step * 3 + 3))
    assert len(source.skipped) == len(said) == 1
    assert "001.tar, 00004" in said[0]
    command = ("finetune", "tiny.st", "--data", "tars", "--streaming", "--max-bad", "1")
    (record,) = sanactl(*command, "--steps", "4", "-b", "3", "-o", "out.st")
    assert record["skipped"] == 1
    assert sanactl.said.count("001.tar, 00004") == 1


def test_a_bad_picture_without_a_name_counts_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parquet's rows have no key: what they hold tells them apart."""
    import datasets

    # datasets waits 5 s at the end of each epoch of Parquet for pyarrow's threads.
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1)
    rows = []
    for number in range(4):
        file = io.BytesIO()
        image, text = picture(number)
        image.save(file, "JPEG")
        whole = file.getvalue()
        data = {1: whole[: len(whole) // 2], 2: b"nothing"}.get(number, whole)
        rows.append({"image": {"bytes": data, "path": None}, "text": text})
    (place / "parquet").mkdir()
    datasets.Dataset.from_list(rows).to_parquet(str(place / "parquet/0.parquet"))
    source = stream("parquet", max_bad=2)
    source.batch(range(6))  # an epoch and a half, or more
    assert len(source.skipped) == 2


def test_a_stream_is_read_once_in_order_for_encoding(place: Path) -> None:
    write_tars(place / "tars", 2, 2)
    table = open_examples("tars", captions="json.short", streaming=True)
    assert [table.texts(row) for row in range(4)] == [[f"short {i}"] for i in range(4)]
    with pytest.raises(EndOfExamples):
        table.image(4)
