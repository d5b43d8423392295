"""Images with text files beside them, and tables that name images: trained on and encoded through the program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.layouts import captions_of, lines, metadata_parquet, opened, png, write
from tests.program import Program

FEW = ("--steps", "1", "-b", "2")
NAMES = ("a.png", "sub/b.png")
CAPTIONS = ("red, round", 'a "green" one')


def pictures(folder: str = "shots") -> None:
    for number, name in enumerate(NAMES):
        write(f"{folder}/{name}", png(number))


def side_files(ending: str) -> None:
    pictures()
    for name, caption in zip(NAMES, CAPTIONS, strict=True):
        write(f"shots/{name}"[:-4] + ending, caption + "\n")


def table(name: str, text: str) -> None:
    pictures()
    write(name, text)


def quoted(delimiter: str, header: str = "image{}text") -> str:
    rows = (
        f'{n}{delimiter}"{c.replace(chr(34), 2 * chr(34))}"' for n, c in zip(NAMES, CAPTIONS, strict=True)
    )
    return "\n".join([header.format(delimiter), *rows])


def json_lines(path: str, caption: str) -> str:
    return lines(*({path: n, caption: c} for n, c in zip(NAMES, CAPTIONS, strict=True)))


def parquet(path: str) -> None:
    import pyarrow as pa
    from pyarrow import parquet as file

    pictures()
    file.write_table(pa.table({"image": list(NAMES), "caption": list(CAPTIONS)}), path)


LAYOUTS: list[tuple[str, Any, str]] = [
    ("shots", lambda: side_files(".txt"), "images with text files"),
    ("shots", lambda: side_files(".caption"), "images with text files"),
    ("shots/list.csv", lambda: table("shots/list.csv", quoted(",")), "a table of image paths"),
    ("shots/list.csv", lambda: table("shots/list.csv", quoted(",", "file_name{}caption")), "a table of image paths"),
    ("shots/list.tsv", lambda: table("shots/list.tsv", quoted("\t")), "a table of image paths"),
    ("shots/*.jsonl", lambda: table("shots/list.jsonl", json_lines("image_path", "prompt")), "a table of image paths"),
    ("shots/list.parquet", lambda: parquet("shots/list.parquet"), "a table of image paths"),
    ("shots", lambda: table("shots/metadata.csv", quoted(",", "file_name{}text")), "images with metadata.csv"),
    (
        "shots/r.jsonl",
        lambda: table("shots/r.jsonl", lines(*(
            {"kind": "image", "path": f"shots/{n}", "prompt": c} for n, c in zip(NAMES, CAPTIONS, strict=True)
        ))),
        "image records",
    ),
]  # fmt: skip
IDS = [
    ".txt",
    ".caption",
    "csv",
    "csv, other names",
    "tsv",
    "jsonl",
    "parquet",
    "metadata.csv",
    "image records",
]


@pytest.mark.parametrize(("data", "build", "what"), LAYOUTS, ids=IDS)
def test_trained_on_and_encoded(place: Path, sanactl: Program, data: str, build: Any, what: str) -> None:
    build()
    (record,) = sanactl("finetune", "tiny.st", "--data", data, *FEW, "-o", "out.st")
    assert record["steps"] == 1
    assert f"using 2 examples of {data} ({what})" in sanactl.said
    (record,) = sanactl("encode", "tiny.st", "--data", data, "-o", "latents")
    assert record["examples"] == 2
    assert captions_of(opened(data)) == sorted(CAPTIONS)
    assert captions_of(opened(data, streaming=True)) == sorted(CAPTIONS)
    assert opened(data, buckets=True).step(0, 2)[1] == (64, 64)


def test_kohyas_layout(place: Path, sanactl: Program) -> None:
    """Folders by subject; an image without a text file is left out, an empty text is the empty prompt."""
    for number in range(5):
        write(f"shots/10_cats/{number}.PNG", png(number))
    write("shots/10_cats/0.txt", "\ufeffa cat\nsits\n")
    write("shots/10_cats/1.TXT", "a kitten")
    write("shots/10_cats/2.txt", "")
    write("shots/10_cats/2.caption", "short")
    write("shots/10_cats/3.npz", "a cache")
    write("shots/README.txt", "notes")
    source = opened("shots", captions="txt")
    assert captions_of(source) == ["", "a cat\nsits", "a kitten"]
    assert "left out: 2 of 5 images, which have no .txt or .caption file; 1 without a caption" in source.about
    assert captions_of(opened("shots", captions="caption:1,txt:1e-9")) == ["a cat\nsits", "a kitten", "short"]
    write("shots/README.txt", "other notes")
    assert opened("shots", captions="txt").identity == source.identity
    write("shots/10_cats/1.TXT", "a tiger")
    assert opened("shots", captions="txt").identity != source.identity


def test_paths_of_a_table(place: Path, sanactl: Program) -> None:
    """Relative to the table's folder, or absolute; missing ones count as images that cannot be read."""
    pictures()
    write("lists/l.tsv", f"path\ttext\n../shots/a.png\ta\n{place}/shots/sub/b.png\tb\n..\\shots\\a.png\tc\n")
    assert captions_of(opened("lists/l.tsv")) == ["a", "b", "c"]
    write("lists/m.csv", "path,text\n../shots/a.png,a\ngone.png,b\n")
    command = ("finetune", "tiny.st", *FEW, "--data")
    said = sanactl.fails(*command, "lists/m.csv")
    assert "lists/gone.png: no such image (" in said and "m.csv, line 3); --max-bad N" in said
    sanactl(*command, "lists/m.csv", "--max-bad", "1", "-o", "out.st")
    assert "skipped: " in sanactl.said


REFUSED = [
    ("shots/x.csv", "a,b\n1,2\n", "x.csv, line 1: no column image path (file_name, "),
    ("shots/x.tsv", "image,text\na.png,red\n", "with tabs between them"),
    ("shots/x.tsv", "image\ttext\na.png\n", "x.tsv, line 2: 1 cells, where the first line names 2 columns"),
    ("shots/x.csv", "image,text\n", "x.csv: holds no rows"),
    ("shots/x.csv", "image,alt\na.png,red\n", "no column text"),
    ("shots/x.csv", "image,text\na.png,\n", "no row has a caption"),
    ("shots/x.csv", "image,text\n/etc/passwd,red\n", "/etc/passwd"),
    ("shots/x.jsonl", '{"prompt": "a cat"}\n', "x.jsonl, line 1: has no image path"),
    ("shots/x.jsonl", '{"image": "a.png", "text": "b"}\n{"image": 7}\n', "line 2: its image is a int, not text"),
    ("shots/x.jsonl", "not JSON\n", "x.jsonl, line 1: not JSON"),
    ("shots/x.jsonl", json.dumps({"kind": "prompt", "prompt": "a"}), "no image records"),
    ("shots/a.txt", "caf\udce9", "shots/a.txt: not UTF-8 text (byte 0xe9); save it as UTF-8"),
    ("shots/a.txt", " ", "shots: no row has a caption: txt is empty in all 1"),
    ("shots/list.csv", None, "images but no captions"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "text", "said"), REFUSED)
def test_refused(place: Path, sanactl: Program, path: str, text: str | None, said: str) -> None:
    pictures()
    write(path, (text or "image,text\n").encode("utf-8", "surrogateescape"))
    data = path if text and not path.endswith(".txt") else "shots"
    told = sanactl.fails("finetune", "tiny.st", *FEW, "--data", data)
    assert said in told
    if text is None:
        assert "--data shots/list.csv" in told


def test_parquet_of_paths_beside_others(place: Path) -> None:
    """A folder of tables alone is read; metadata.parquet stays metadata."""
    pictures("elsewhere")
    Path("tables").mkdir()
    parquet_rows = [str(place / "elsewhere" / n) for n in NAMES]
    metadata_parquet("tables/0.parquet", parquet_rows)
    assert captions_of(opened("tables")) == ["text 0", "text 1"]
