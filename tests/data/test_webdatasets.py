"""Webdatasets: whatever order, names and kinds their members have, each image comes with its caption."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.layouts import (
    TWO,
    Build,
    captions_of,
    group,
    opened,
    png,
    tar,
    write,
)


def eight(image: Callable[[int], str], text: str = "txt") -> Build:
    """Eight examples, the image's name by number."""

    def build() -> None:
        members: list[tuple[str, bytes | str]] = []
        for i in range(8):
            name = image(i)
            kind = {"jpg": "JPEG", "webp": "WEBP"}.get(name.rpartition(".")[2].lower(), "PNG")
            members += [(name, png(i, kind)), (f"{name.rpartition('.')[0]}.{text}", f"text {i}")]
        tar("shots/0.tar", members)

    return build


def joined() -> None:
    tar("a.tar", {"0.png": png(), "0.txt": "text 0"})
    tar("b.tar", {"1.png": png(), "1.txt": "text 1"})
    write("shots/0.tar", Path("a.tar").read_bytes() + Path("b.tar").read_bytes())


def long_names() -> None:
    for number, kind in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        name = "x" * 150 + "/" + "é" * 100
        tar(f"shots/{number}.tar", {f"{name}.png": png(), f"{name}.txt": f"text {number}"}, format=kind)


EIGHT = [f"text {i}" for i in range(8)]
P = png()
TARS: list[tuple[str, Build, list[str], str]] = [
    ("jpg", eight(lambda i: f"{i:03d}.jpg"), EIGHT, "8 examples of shots (a webdataset of 1 .tar file)"),
    ("jpg and png", eight(lambda i: f"{i:03d}.{'jpg' if i % 2 else 'png'}"), EIGHT, "8 examples"),
    ("png and webp from the sixth on", eight(lambda i: f"{i}.{'webp' if i > 5 else 'png'}"), EIGHT, "8 examples"),
    ("capitals", eight(lambda i: f"{i:03d}.JPG", "TXT"), EIGHT, "8 examples"),
    ("dotted names", eight(lambda i: f"IMG_1.{i}.png"), EIGHT, "8 examples"),
    ("dates and versions", eight(lambda i: f"v1.2.3/2024.01.0{i}.jpg"), EIGHT, "8 examples"),
    ("in folders, from .", eight(lambda i: f"./{i % 2}/{i // 2}.png"), EIGHT, "8 examples"),
    ("images first, then captions", group(("0.png", P), ("1.png", P), ("1.txt", "text 1"), ("0.txt", "text 0")), TWO, ""),
    ("captions first", group(("0.txt", "text 0"), ("0.png", P), ("1.txt", "text 1"), ("1.jpeg", png(1, "JPEG"))), TWO, ""),
    ("a json", group(("0.png", P), ("0.json", '{"caption": "text 0"}'), ("1.png", P), ("1.json", '{"caption": "text 1"}')), TWO, ""),
    ("null captions", group(*(m for i in range(6) for m in ((f"{i}.png", P), (f"{i}.json", json.dumps({"caption": "c" if i > 4 else None}))))),
     ["", "", "", "", "", "c"], "5 without a caption, trained with the empty prompt"),
    ("captions of the last alone", group(*((f"{i}.png", P) for i in range(6)), ("5.txt", "c")), ["", "", "", "", "", "c"], "5 without"),
    ("a dotted one without a caption", group(("IMG_1.5.png", P), ("IMG_1.6.png", P), ("IMG_1.6.txt", "c")), ["", "c"], "1 without"),
    ("a map beside the image", group(("0.seg.png", P), ("0.jpg", png(1, "JPEG")), ("0.txt", "text 0"), ("1.png", P), ("1.txt", "text 1")),
     TWO, "left out: 1 images beside the first of their example"),
    ("several captions", group(("0.png", P), ("0.txt", "text 0"), ("0.short.txt", "s"), ("1.png", P), ("1.txt", "text 1")), TWO, ""),
    ("captions alone", group(("0.png", P), ("0.txt", "text 0"), ("1.txt", "lost"), ("README", "x"), ("all.csv", "y")), TWO[:1],
     "left out: 1 captions without an image"),
    ("the same name twice", group(("0.png", P), ("0.txt", "text 0"), ("0.png", P), ("0.txt", "text 1")), TWO, "2 examples"),
    ("hidden members", group(("0.png", P), ("0.txt", "text 0"), ("._0.png", P), (".x/1.png", P), ("__MACOSX/0.png", P)), TWO[:1], "1 example of"),
    ("links", lambda: tar("shots/0.tar", {"0.png": P, "0.txt": "text 0", "1.png": None}), TWO[:1], "1 members that are links or devices"),
    ("joined", joined, TWO, "2 examples"),
    ("long names", long_names, TWO, "a webdataset of 2 .tar files"),
    ("a broken json that is not used", group(("0.png", P), ("0.txt", "text 0"), ("0.json", "{"), ("1.png", P), ("1.txt", "text 1")), TWO, ""),
    ("a mark before the caption", group(("0.png", P), ("0.txt", b"\xef\xbb\xbftext 0")), TWO[:1], ""),
]  # fmt: skip


@pytest.mark.parametrize(("build", "captions", "about"), [t[1:] for t in TARS], ids=[t[0] for t in TARS])
def test_webdatasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Build, captions: list[str], about: str
) -> None:
    monkeypatch.chdir(tmp_path)
    build()
    source = opened("shots")
    assert captions_of(source) == captions
    assert about in source.about
    stream = opened("shots", streaming=True)
    assert sorted(stream.batch(range(len(captions)))[1]) == captions
    assert opened("shots", buckets=True).step(0, 2)[1] == (64, 64)
