"""Data that cannot be used: one line names the file, what is wrong, and what to do."""

from __future__ import annotations

import os
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sanactl.errors import SanactlError
from tests.layouts import (
    AB,
    Build,
    csv,
    group,
    images,
    jsonl,
    lines,
    opened,
    parquet,
    png,
    several,
    tar,
    write,
)

P = png()


def nothing() -> None:
    pass


def special(make: Callable[[str], object]) -> Build:
    def build() -> None:
        make("shots")

    return build


def bound_socket(name: str) -> None:
    socket.socket(socket.AF_UNIX).bind(name)


def unreadable_tar(change: Callable[[bytes], bytes]) -> Build:
    def build() -> None:
        tar("whole.tar", {"0.png": png(), "0.txt": "text 0", "1.png": png(), "1.txt": "text 1"})
        write("shots/0.tar", change(Path("whole.tar").read_bytes()))

    return build


def two_files() -> None:
    images("shots/a", AB)
    write("shots/metadata.jsonl", lines({"file_name": "a/a.png", "text": "x"}))


def bomb_header() -> None:
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 8 * 2**30
    write("shots/0.tar", member.tobuf() + bytes(1024))
    os.truncate("shots/0.tar", 9 * 2**30)


REFUSED: list[tuple[str, Build, str]] = [
    ("nothing", nothing, r"^shots: there is no such folder"),
    ("an empty folder", lambda: Path("shots").mkdir(), r"^shots: is empty"),
    ("a folder of text", lambda: write("shots/x.txt", "a"), r"^shots: no images, \.tar or \.parquet files in it"),
    ("a file without a suffix", lambda: write("shots", "a"), r"^shots: is no folder of images"),
    ("a pipe", special(os.mkfifo), r"^shots: is neither a regular file nor a folder"),
    ("a socket", special(bound_socket), r"^shots: is neither a regular file nor a folder"),
    ("zips", lambda: write("shots/a.zip", "PK"), r"^shots: a\.zip is compressed; unpack"),
    ("images alone", lambda: write("shots/a.png", P), r"^shots: has images but no captions; put a metadata\.jsonl"),
    ("images and tars", several(lambda: write("shots/a.png", P), lambda: tar("shots/x.tar", {"0.png": P})),
     r"^shots: holds a\.png and x\.tar: which kind is the data\?.*shots/\*\.tar"),
    ("tars and parquet", several(lambda: tar("shots/x.tar", {"0.png": P}), lambda: parquet("shots/x.parquet", ["a"])), r"holds x\.tar and x\.parquet"),
    ("metadata alone", lambda: write("shots/metadata.jsonl", lines({"file_name": "0.png", "text": "a"})), r"names images, but none is there"),
    ("Latin-1", csv('{"file_name":"0.png","text":"a"}\n{"file_name":"1.png","text":"café"}\n'.encode("latin-1"), "metadata.jsonl"),
     r"^shots/metadata\.jsonl, line 2: not UTF-8 text \(byte 0xe9\); save it as UTF-8"),
    ("UTF-16", csv('{"file_name":"0.png"}'.encode("utf-16"), "metadata.jsonl"), r"line 1: not UTF-8 text \(byte 0xff\)"),
    ("a Latin-1 csv", csv("file_name,text\n0.png,café\n".encode("latin-1")), r"metadata\.csv, line 2: not UTF-8 text"),
    ("empty metadata", csv("", "metadata.jsonl"), r"^shots/metadata\.jsonl: holds no rows; a line is"),
    ("blank metadata", csv("\n \n", "metadata.jsonl"), r"metadata\.jsonl: holds no rows"),
    ("a csv of a header", csv("file_name,text\n"), r"metadata\.csv: holds no rows"),
    ("an empty csv", csv(""), r"metadata\.csv: holds no rows"),
    ("semicolons", csv("file_name;text\n0.png;a\n"), r"line 1: no column file_name; it has file_name;text.*commas"),
    ("an open quote", csv('file_name,text\n0.png,"a\n'), r"metadata\.csv, line 2: not CSV"),
    ("too many cells", csv("file_name,text\n0.png,red, round\n"), r"line 2: 3 cells, where the first line names 2 columns; .*quotes"),
    ("parquet that is none", csv("PAR1", "metadata.parquet"), r"metadata\.parquet: not a Parquet file"),
    ("no JSON", csv("{'file_name': '0.png'}\n", "metadata.jsonl"), r"line 1: not JSON"),
    ("deep JSON", csv("[" * 100_000, "metadata.jsonl"), r"line 1: not JSON"),
    ("a number of 5,000 digits", csv('{"file_name": ' + "9" * 5000 + "}", "metadata.jsonl"), r"line 1: "),
    ("a list", jsonl(["0.png", "a"]), r"line 1: a JSON list, not an object"),
    ("no file name", jsonl({"file": "0.png", "text": "a"}), r"line 1: has no file_name"),
    ("a number for a name", jsonl({"file_name": 7, "text": "a"}), r"line 1: its file_name is a int, not text"),
    ("half a character", csv('{"file_name": "\\ud800.png", "text": "a"}', "metadata.jsonl"), r"line 1: its file_name is not Unicode"),
    ("half a character in a caption", csv('{"file_name": "0.png", "text": "\\ud800"}', "metadata.jsonl"), r"line 1: column text is not Unicode"),
    ("an absolute name", jsonl({"file_name": "/etc/passwd", "text": "a"}), r"line 1: file_name '/etc/passwd' leads out of shots"),
    ("a name outside", jsonl({"file_name": "x/../../a.png", "text": "a"}), r"line 1: file_name 'x/\.\./\.\./a\.png' leads out of shots"),
    ("a windows name outside", jsonl({"file_name": "..\\a.png", "text": "a"}), r"leads out of shots"),
    ("the folder itself", jsonl({"file_name": "./", "text": "a"}), r"names no file"),
    ("a missing image", jsonl({"file_name": "0.png", "text": "a"}, {"file_name": "7.png", "text": "b"}),
     r"^shots/7\.png: no such image \(shots/metadata\.jsonl, line 2\); --max-bad N skips up to"),
    ("missing images alone", jsonl({"file_name": "7.png", "text": "b"}), r"none of the images that its metadata name is there: shots/7\.png"),
    ("no caption at all", jsonl(*({"file_name": f"{i}.png", "text": None} for i in range(2))), r"^shots: no row has a caption: text is empty in all 2"),
    ("captions that are lists", jsonl({"file_name": "0.png", "text": ["a"]}), r"^shots/metadata\.jsonl, line 1: column text holds a list"),
    ("another column", jsonl({"file_name": "0.png", "alt": "a"}), r"no column text.*beside alt; name a column with --captions"),
    ("two metadata files in a folder", several(lambda: images("shots", AB), lambda: write("shots/metadata.csv", "file_name,text\na.png,x\n")),
     r"^shots: has metadata\.csv and metadata\.jsonl; keep one"),
    ("an image in two files", two_files, r"^shots/a/a\.png: both shots/.*tell of it; keep one"),
    ("a tar of nothing", lambda: tar("shots/0.tar", {}), r"^shots: no images in 1 \.tar file"),
    ("an empty tar", lambda: write("shots/0.tar", ""), r"^shots/0\.tar: not a whole \.tar file \(empty file\)"),
    ("a tar that is text", lambda: write("shots/0.tar", "x" * 2000), r"^shots/0\.tar: not a whole \.tar file"),
    ("a packed tar", lambda: tar("shots/0.tar", {"0.png": P}, mode="w:gz"), r"^shots/0\.tar: is compressed \(gzip\); unpack"),
    ("a tar cut short in a member", unreadable_tar(lambda d: d[:600]), r"^shots/0\.tar: not a whole \.tar file"),
    ("a tar damaged in the middle", unreadable_tar(lambda d: d[:1024] + b"x" * 512 + d[1536:]), r"^shots/0\.tar: damaged at byte 1,024"),
    ("a huge header", bomb_header, r"^shots/0\.tar: not a whole \.tar file"),
    ("a Latin-1 caption", group(("0.png", P), ("0.txt", "café".encode("latin-1"))), r"^shots/0\.tar, 0\.txt: not UTF-8 text \(byte 0xe9\)"),
    ("a broken json", group(("0.png", P), ("0.json", '{"caption": ')), r"^shots/0\.tar, 0\.json: not JSON"),
    ("a tar without captions", group(("0.png", P)), r"^shots: has images but no captions"),
    ("a tar of empty captions", group(("0.png", P), ("0.txt", " ")), r"^shots: no row has a caption: txt is empty in all 1"),
    ("parquet that is text", lambda: write("shots/a.parquet", "x"), r"^shots: cannot be read as a parquet: (?!An error occurred)"),
    ("parquet without captions", lambda: parquet("shots/a.parquet", [None, None]), r"^shots: no row has a caption: text is empty in all 2"),
    ("parquet of other columns", lambda: parquet("shots/a.parquet", ["a"], "alt"), r"no column text.*beside alt"),
]  # fmt: skip


@pytest.mark.parametrize(("build", "said"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Build, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    build()
    with pytest.raises(SanactlError, match=said) as caught:
        opened("shots")
    assert "\n" not in str(caught.value)
