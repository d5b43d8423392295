"""Where pictures come from: folders, tars, Parquet, saved datasets, records; in buckets; with some that are damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sanactl.data import TableSource, open_training_data
from sanactl.data.references import expand_braces
from sanactl.errors import InputError, UsageError
from tests.pictures import MIXED, image_records, picture, spoil, write_folder, write_tars
from tests.program import Program


def opened(reference: str | None, **options: Any) -> TableSource:
    given: dict[str, Any] = {"seed": 0, "height": 64, "width": 64, **options}
    source = open_training_data(reference, **given)
    assert isinstance(source, TableSource)
    return source


def captions_of(source: TableSource, count: int) -> list[str]:
    return sorted(source.batch(range(count))[1])


def test_the_same_pictures_from_everywhere(place: Path) -> None:
    """A folder, tars as folder, pattern and braces, Parquet and a saved dataset, prepared or as a stream."""
    import datasets

    write_folder(place / "shots", 6)
    write_tars(place / "tars", 2, 3)
    table = datasets.load_dataset("imagefolder", data_dir=str(place / "shots"), split="train")
    (place / "parquet").mkdir()
    table.to_parquet(str(place / "parquet/0.parquet"))
    table.save_to_disk(str(place / "saved"))
    wanted = captions_of(opened("shots"), 6)
    pictures = {c: i for i, c in zip(*opened("shots").batch(range(6)), strict=True)}
    assert len(wanted) == len(set(wanted))
    places = ["tars", "tars/*.tar", "tars/{000..001}.tar", "parquet", "parquet/0.parquet", "saved"]
    for reference in places:
        for streaming in (False, True):
            source = opened(reference, streaming=streaming)
            images, captions = source.batch(range(6))
            assert sorted(captions) == wanted, (reference, streaming)
            assert all((pictures[c] == i).all() for c, i in zip(captions, images, strict=True))
    records = image_records(place / "shots")
    assert captions_of(opened(None, records=records), 6) == wanted
    # A field of the .json beside a picture is a caption like any other.
    short = captions_of(opened("tars", captions="json.short"), 6)
    assert short == [f"short {i}" for i in range(6)]


def test_a_folder_that_sample_wrote(place: Path) -> None:
    """GenEval's layout is data as it stands: the prompts are the captions."""
    for number in range(3):
        image, text = picture(number)
        folder = place / f"drawn/{number:05d}"
        (folder / "samples").mkdir(parents=True)
        (folder / "metadata.jsonl").write_text(json.dumps({"prompt": text, "tag": "counting"}))
        for index in range(2):
            image.save(folder / f"samples/{index:04d}.png")
    source = opened("drawn")
    assert captions_of(source, 6) == sorted(picture(number)[1] for number in range(3) for _ in range(2))


def test_jpegs_in_tars(place: Path) -> None:
    write_tars(place / "tars", 1, 2, "JPEG")
    assert opened("tars").batch(range(2))[0].shape == (2, 64, 64, 3)


def test_braces() -> None:
    assert expand_braces("s-{08..10}.tar") == ["s-08.tar", "s-09.tar", "s-10.tar"]
    assert expand_braces("{2..0}{a,b}") == ["2a", "2b", "1a", "1b", "0a", "0b"]
    assert expand_braces("plain") == ["plain"]
    with pytest.raises(InputError, match="files"):
        expand_braces("{0..99999999}.tar")


def test_what_is_missing_is_named(place: Path, sanactl: Program) -> None:
    write_tars(place / "tars", 2, 1)
    command = ("finetune", "tiny.st", "--steps", "1", "--data")
    assert "tars/002.tar: no such file" in sanactl.fails(*command, "tars/{000..002}.tar")
    assert "no such file" in sanactl.fails(*command, "tars/*.tgz")
    (place / "x.csv").write_text("a,b\n")
    assert "x.csv, line 1: no column image path (file_name, " in sanactl.fails(*command, "x.csv")
    (place / "tars/001.tar").write_bytes(b"nothing")
    assert "tars/001.tar: not a whole .tar file" in sanactl.fails(*command, "tars")


def test_files_that_change_change_the_identity(place: Path) -> None:
    folder = write_folder(place / "shots", 3)
    write_tars(place / "tars", 1, 2)
    records = image_records(folder)
    before = [opened("shots").identity, opened(None, records=records).identity, opened("tars").identity]
    again = [opened("shots").identity, opened(None, records=records).identity, opened("tars").identity]
    assert before == again
    (folder / "001.png").write_bytes((folder / "002.png").read_bytes())
    (place / "tars/000.tar").write_bytes((place / "tars/000.tar").read_bytes() + bytes(512))
    after = [opened("shots").identity, opened(None, records=records).identity, opened("tars").identity]
    assert all(a != b for a, b in zip(before, after, strict=True))


def test_buckets_keep_the_shapes_of_pictures(place: Path) -> None:
    write_folder(place / "shots", 12, MIXED)
    for source in (
        opened("shots", buckets=True),
        opened(None, records=image_records(place / "shots"), buckets=True),
    ):
        sizes = set()
        for step in range(12):
            positions, (height, width) = source.step(step, 2)
            images, captions = source.batch(positions)
            assert images.shape == (2, height, width, 3)
            assert len(captions) == 2
            sizes.add((height, width))
        assert sizes == {(64, 64), (48, 88), (88, 48), (72, 56)}
        assert source.identity not in (opened("shots").identity, source.examples.identity)
        whole = source.batch(source.step(5, 4)[0])
        parts = [source.batch([p]) for p in source.step(5, 4)[0]]
        assert all((image == part[0][0]).all() for image, part in zip(whole[0], parts, strict=True))


def test_buckets_of_a_stream_are_refused(place: Path) -> None:
    write_tars(place / "tars", 1, 2)
    with pytest.raises(UsageError, match="encode --streaming --buckets"):
        opened("tars", buckets=True, streaming=True)


def test_sizes_of_a_large_table_are_remembered(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sanactl.data import sizes

    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.setattr(sizes, "REMEMBERED_FROM", 1)
    write_folder(place / "shots", 5, MIXED)
    first = opened("shots", buckets=True)
    (file,) = (place / "cache/sanactl").glob("sizes-*.npy")
    assert np.load(file).tolist() == [[64, 64], [48, 96], [96, 48], [80, 64], [64, 64]]
    np.save(file, np.full((5, 2), 64))
    remembered = opened("shots", buckets=True)
    assert {remembered.step(s, 2)[1] for s in range(5)} == {(64, 64)}
    file.write_bytes(b"damaged")
    again = opened("shots", buckets=True)
    assert [again.step(s, 2) for s in range(5)] == [first.step(s, 2) for s in range(5)]


@pytest.mark.parametrize("buckets", [False, True])
def test_bad_pictures_are_named_and_replaced(place: Path, buckets: bool) -> None:
    folder = write_folder(place / "shots", 8)
    spoil(folder / "003.png")
    spoil(folder / "004.png")
    good = write_folder(place / "good", 8)
    source = opened("shots", max_bad=2, buckets=buckets)
    other = opened("shots", max_bad=2, buckets=buckets)
    positions = [p for step in range(4) for p in source.step(step, 4)[0]]
    images, captions = source.batch(positions)
    assert len(source.skipped) == 2
    assert ["003.png" in line or "004.png" in line for line in source.skipped] == [True, True]
    # Another process, or a resumed run, draws parts in another order and finds the same pairs.
    for position, image, caption in list(zip(positions, images, captions, strict=True))[::-3]:
        again = other.batch([position])
        assert (again[0][0] == image).all() and again[1] == [caption]
    whole = opened(str(good), buckets=buckets).batch(positions)
    rows = [source.order.row(p) for p in positions]
    for row, image, caption, wanted in zip(rows, images, captions, whole[0], strict=True):
        if row not in (3, 4):
            assert (image == wanted).all()
        else:
            assert caption == json.loads((good / "metadata.jsonl").read_text().splitlines()[5])["text"]


def test_one_bad_picture_too_many(place: Path, sanactl: Program) -> None:
    folder = write_folder(place / "shots", 6)
    spoil(folder / "003.png")
    spoil(folder / "004.png")
    with pytest.raises(InputError, match=r"00[34]\.png.*--max-bad allows 1.*raise --max-bad"):
        opened("shots", max_bad=1).batch(range(6))
    with pytest.raises(InputError, match=r"00[34]\.png.*--max-bad N"):
        opened("shots").batch(range(6))
    for name in folder.glob("*.png"):
        name.write_bytes(b"nothing")
    with pytest.raises(InputError, match="none of its images"):
        opened("shots", max_bad=6).batch(range(6))
    with pytest.raises(InputError, match="none of its images"):
        opened("shots", max_bad=6, buckets=True)
    with pytest.raises(InputError, match=r"png.*--max-bad N"):
        opened("shots", buckets=True)


def test_a_picture_without_a_header_is_out_of_the_buckets(place: Path) -> None:
    folder = write_folder(place / "shots", 6)
    (folder / "002.png").write_bytes(b"nothing")
    source = opened("shots", buckets=True, max_bad=1)
    assert len(source.skipped) == 1 and "002.png" in source.skipped[0]
    assert {source.order.row(p) for s in range(6) for p in source.step(s, 4)[0]} == {0, 1, 3, 4, 5}


def test_captions_that_are_no_text(place: Path) -> None:
    folder = write_folder(place / "shots", 2)
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "000.png", "text": ["a", "b"]}\n{"file_name": "001.png", "text": ["c"]}\n'
    )
    with pytest.raises(InputError, match="column text holds a list"):
        opened("shots").batch([0])
