"""What `--data` may name: each layout gives exactly the captions that are in it."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest

from sanactl.errors import SanactlError
from tests.layouts import (
    AB,
    TWO,
    Build,
    captions_of,
    csv,
    images,
    jsonl,
    lines,
    metadata_parquet,
    opened,
    parquet,
    png,
    tar,
    write,
)

# Names that are patterns to datasets, fsspec or a shell, or words that it takes for splits.
NAMES = [
    "set[12]", "run [v2]", "a*b", "a?b", "a#b", "a%20b", "two words", "new\nline", "a{1,2}", "__x", "a::b", "a:",
    "[]", "train", "test", "tests", "dev", "validation", "eval", "val-set", "unsplit train", "-x", "café",
    unicodedata.normalize("NFD", "café"), "x.tar", "x.jsonl", "a'b\"c", "$HOME", "~x", "a\\b", "日本",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    # Neighbours that a pattern would find in its place.
    images("set1", AB, "wrong")
    images("axb", AB, "wrong")
    images(f"{name}/images", AB)
    assert captions_of(opened(f"./{name}/images")) == TWO
    tar(f"{name}/tars/0.tar", {"0.png": png(), "0.txt": "text 0", "1.png": png(), "1.txt": "text 1"})
    for reference in (
        f"./{name}/tars",
        f"./{name}/tars/0.tar",
        f"./{name}/tars/*.tar",
        f"./{name}/tars/{{0..0}}.tar",
    ):
        assert captions_of(opened(reference)) == TWO


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_parquet_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    parquet(f"{name}/test-0.parquet", TWO[:1])
    parquet(f"{name}/train-0.parquet", TWO[1:])
    if "::" in name or "$" in name:
        with pytest.raises(SanactlError, match="datasets cannot read files with"):
            opened(f"./{name}")
    else:
        assert captions_of(opened(f"./{name}")) == TWO


@pytest.mark.parametrize("name", [n for n in NAMES if n != "\\"])
def test_any_name_of_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    images("shots", [f"{name}.png", f"photo of a {name}.PNG"])
    assert captions_of(opened("shots")) == TWO


def nested() -> None:
    for kind in ("car", "train"):
        images(f"shots/{kind}", ["0.png", "1.png"], kind)


def root_metadata() -> None:
    write("shots/a/0.png", png())
    write("shots/b/0.png", png())
    write(
        "shots/metadata.jsonl",
        lines({"file_name": "a/0.png", "text": "text 0"}, {"file_name": "./b//0.png", "text": "text 1"}),
    )


def with_parquet() -> None:
    images("shots", AB)
    os.remove("shots/metadata.jsonl")
    metadata_parquet("shots/metadata.parquet", AB)


def stray(name: str) -> Build:
    def build() -> None:
        images("shots", AB)
        if name.endswith("tar"):
            tar(f"shots/{name}", {"old.png": png(), "old.txt": "STRAY"})
        elif name.endswith("parquet"):
            parquet(f"shots/{name}", ["STRAY"])
        else:
            write(f"shots/{name}", "STRAY")

    return build


def hidden() -> None:
    images("shots", AB)
    for name in (".DS_Store", "._a.png", ".git/x.png", "__MACOSX/a.png", ".c.png", "README.md", "Thumbs.db"):
        write(f"shots/{name}", png())


def linked() -> None:
    images("elsewhere", AB)
    Path("shots").mkdir()
    os.symlink("../elsewhere", "shots/inside")
    os.symlink("..", "shots/loop")
    os.symlink("nowhere", "shots/broken.png")


def normal_forms() -> None:
    composed, parted = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "ü")
    images("shots", [f"{composed}.png", f"{parted}.png"])
    told = [unicodedata.normalize("NFD", composed), unicodedata.normalize("NFC", parted)]
    write(
        "shots/metadata.jsonl",
        lines(*({"file_name": f"{n}.png", "text": f"text {i}"} for i, n in enumerate(told))),
    )


def geneval() -> None:
    for number in range(2):
        write(f"shots/{number:05d}/metadata.jsonl", json.dumps({"prompt": f"text {number}", "tag": "x"}))
        write(f"shots/{number:05d}/samples/0000.png", png())


def digits() -> None:
    """Folders with digits for names, which are not GenEval's."""
    for number in range(2):
        images(f"shots/{number}", ["x.png"], f"{number}")


def upper_metadata() -> None:
    images("shots", ["A.PNG", "B.JpEg"])


FOLDERS: list[tuple[str, Build, list[str], str]] = [
    ("nested metadata", nested, ["car 0", "car 1", "train 0", "train 1"], "4 examples of shots (images with 2 metadata files)"),
    ("one file for all folders", root_metadata, TWO, "2 examples"),
    ("csv", csv('file_name,text\n0.png,"text 0"\n\n1.png,text 1\n'), TWO, "images with metadata.csv"),
    ("csv of a spreadsheet", csv("\ufefffile_name,text\r\n0.png,text 0\r\n1.png,text 1\r\n"), TWO, "2 examples"),
    ("csv with line ends in cells", csv('text,file_name\n"a\nb",0.png\nc,1.png'), ["a\nb", "c"], "2 examples"),
    ("jsonl with a mark", csv(b"\xef\xbb\xbf" + lines({"file_name": "0.png", "text": "a"}).encode(), "metadata.jsonl"), ["a"],
     "left out: 1 of 2 images, which have no line in metadata.jsonl"),
    ("parquet metadata", with_parquet, TWO, "images with metadata.parquet"),
    ("a stray tar", stray("backup.tar"), TWO, "left out: backup.tar, since metadata tell of images"),
    ("a stray parquet", stray("data/x.parquet"), TWO, "left out: data/x.parquet"),
    ("a stray arrow", stray("cache.arrow"), TWO, "left out: cache.arrow"),
    ("a stray zip", stray("images.zip"), TWO, "2 examples of shots (images with metadata.jsonl)"),
    ("hidden files", hidden, TWO, "2 examples of shots (images with metadata.jsonl)"),
    ("links and a loop of links", linked, TWO, "2 examples of shots"),
    ("both normal forms", normal_forms, TWO, "2 examples of shots"),
    ("GenEval's layout", geneval, TWO, "2 examples of shots (image records)"),
    ("digits that are not GenEval's", digits, ["0 0", "1 0"], "images with 2 metadata files"),
    ("capitals", upper_metadata, TWO, "2 examples"),
    ("half without a line", lambda: images("shots", ["0.png", "1.png", "2.png"], tell=2), TWO,
     "left out: 1 of 3 images, which have no line in metadata.jsonl"),
    ("an image twice", jsonl({"file_name": "0.png", "text": "a"}, {"file_name": "./0.png", "text": "b"}), ["a", "b"], "2 examples"),
    ("null captions", jsonl({"file_name": "0.png", "text": None}, {"file_name": "1.png", "text": "b"}), ["", "b"],
     "1 without a caption, trained with the empty prompt"),
    ("a column that only late rows have", jsonl({"file_name": "0.png"}, {"file_name": "1.png", "caption": "b"}), ["", "b"],
     "1 without a caption"),
    ("an empty text beside a full caption", jsonl(*({"file_name": f"{i}.png", "text": "", "caption": f"c{i}"} for i in range(2))),
     ["c0", "c1"], "2 examples"),
    ("columns of other kinds", jsonl(*({"file_name": f"{i}.png", "text": f"{i}", "n": [i, {"a": None}]} for i in range(2))),
     ["0", "1"], "2 examples"),
    ("windows paths", jsonl({"file_name": ".\\0.png", "text": "a"}, {"file_name": "x\\..\\1.png", "text": "b"}), ["a", "b"], ""),
    ("image_file_name", jsonl({"image_file_name": "0.png", "text": "a"}), ["a"], "1 example of"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("build", "captions", "about"), [f[1:] for f in FOLDERS], ids=[f[0] for f in FOLDERS]
)
def test_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Build, captions: list[str], about: str
) -> None:
    monkeypatch.chdir(tmp_path)
    build()
    source = opened("shots")
    assert captions_of(source) == sorted(captions)
    assert about in source.about
    assert captions_of(opened("shots", streaming=True)) == sorted(captions)
    assert opened("shots", buckets=True).step(0, 2)[1] == (64, 64)
    if (tmp_path / "shots/metadata.csv").exists():
        assert captions_of(opened("shots/metadata.csv")) == sorted(captions)


def test_a_missing_image_may_be_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jsonl({"file_name": "0.png", "text": "a"}, {"file_name": "7.png", "text": "b"})()
    for buckets in (False, True):
        source = opened("shots", max_bad=1, buckets=buckets)
        positions = [p for step in range(4) for p in source.step(step, 1)[0]]
        assert set(source.batch(positions)[1]) == {"a"}
        assert source.skipped == ["shots/7.png: no such image"]


def test_files_that_are_named_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tar("a.tar", {"0.png": png(), "0.txt": "text 0"})
    parquet("a.parquet", TWO)
    images("shots", AB)
    write(
        "r.jsonl",
        lines(*({"kind": "image", "path": f"shots/{n}", "prompt": f"text {i}"} for i, n in enumerate(AB))),
    )
    assert captions_of(opened("a.tar")) == TWO[:1]
    for reference in ("a.parquet", "r.jsonl", "shots/metadata.jsonl"):
        assert captions_of(opened(reference)) == TWO
    assert opened("r.jsonl").about == "2 examples of r.jsonl (image records)"
    for pattern in ("a.*", "a.{tar,parquet}"):
        with pytest.raises(SanactlError, match=r"names a\.parquet and a\.tar"):
            opened(pattern)
    for gone in ("gone.jsonl", "gone/0.tar", "gone/*.tar", "a/b/c.parquet"):
        with pytest.raises(SanactlError, match="no such file"):
            opened(gone)


def test_a_saved_dataset_of_several_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.chdir(tmp_path)
    rows = [{"image": {"bytes": png(i), "path": None}, "text": t} for i, t in enumerate(TWO)]
    table = datasets.Dataset.from_list(rows)
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk("shots")
    with pytest.raises(SanactlError, match=r"several splits; name one: shots/train$"):
        opened("shots")
    assert captions_of(opened("shots/train")) == TWO
