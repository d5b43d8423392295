"""Data are known by what they hold, not by the path that leads to them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.layouts import (
    AB,
    TWO,
    Build,
    images,
    opened,
    parquet,
    png,
    several,
    tar,
    write,
)

IDENTICAL: list[tuple[str, Build]] = [
    ("images", lambda: images("place/shots", AB)),
    ("tars", lambda: tar("place/shots/0.tar", {"0.png": png(), "0.txt": "text 0"})),
    ("parquet", lambda: parquet("place/shots/0.parquet", TWO)),
    ("geneval", several(lambda: write("place/shots/0/metadata.jsonl", '{"prompt": "a"}'), lambda: write("place/shots/0/samples/0.png", png()))),
]  # fmt: skip


@pytest.mark.parametrize("build", [i[1] for i in IDENTICAL], ids=[i[0] for i in IDENTICAL])
def test_data_are_known_by_what_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Build
) -> None:
    """One identity by whatever path, also of a copy; another one for other bytes, even of the same size and time."""
    import shutil

    monkeypatch.chdir(tmp_path)
    build()
    os.symlink("place/shots", "link")
    spelled = [
        "place/shots",
        "place/shots/",
        "./place/shots",
        "place/../place/shots",
        str(tmp_path / "place/shots"),
        "link",
    ]
    (identity,) = {opened(name).identity for name in spelled}
    shutil.copytree("place/shots", "copy")
    assert opened("copy").identity == identity
    file = sorted(p for p in Path("place/shots").rglob("*") if p.suffix in (".png", ".tar", ".parquet"))[0]
    before, data = file.stat(), file.read_bytes()
    at = data.index(b"IDAT") + 6
    file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert opened("link").identity != identity


def test_large_data_are_known_by_names_sizes_and_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sanactl.data import listing

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(listing, "READ_WHOLE", 100)
    images("shots", AB)
    identity = opened("shots").identity
    assert opened("./shots").identity == identity
    os.utime("shots/a.png", ns=(0, 0))
    assert opened("shots").identity != identity
