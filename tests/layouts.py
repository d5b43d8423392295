"""Small training data of every layout, made by hand."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from sanactl.data import TableSource, open_training_data

Build = Callable[[], object]
TWO = ["text 0", "text 1"]
AB = ["a.png", "b.png"]

COLORS = ("red", "green", "blue", "orange", "purple", "black", "yellow", "brown")


def png(number: int = 0, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), COLORS[number % len(COLORS)]).save(file, kind)
    return file.getvalue()


def write(path: str, content: bytes | str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content.encode() if isinstance(content, str) else content)


def several(*builds: Build) -> Build:
    return lambda: [build() for build in builds]


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def images(folder: str, names: Sequence[str], say: str = "text", *, tell: int | None = None) -> None:
    """A folder of images; the first `tell` of them (all) have a line in metadata.jsonl, with captions "text 0", ..."""
    for number, name in enumerate(names):
        write(f"{folder}/{name}", png(number))
    told = [{"file_name": n, "text": f"{say} {i}"} for i, n in enumerate(names[:tell])]
    write(f"{folder}/metadata.jsonl", lines(*told))


def tar(
    path: str, members: dict[str, bytes | str | None] | Sequence[tuple[str, bytes | str]], **options: Any
) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, options.pop("mode", "w"), **options) as file:
        for name, content in members.items() if isinstance(members, dict) else members:
            data = content.encode() if isinstance(content, str) else content or b""
            member = tarfile.TarInfo(name)
            member.size = len(data)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "elsewhere.png"
            file.addfile(member, io.BytesIO(data))


def parquet(path: str, captions: Sequence[str | None], say: str = "text") -> None:
    import pyarrow as pa
    from pyarrow import parquet as file

    rows = [{"bytes": png(i), "path": None} for i in range(len(captions))]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as stream:
        file.write_table(pa.table({"image": rows, say: pa.array(captions, pa.string())}), stream)


def metadata_parquet(path: str, names: Sequence[str]) -> None:
    import pyarrow as pa
    from pyarrow import parquet as file

    with open(path, "wb") as stream:
        file.write_table(
            pa.table({"file_name": list(names), "text": [f"text {i}" for i in range(len(names))]}), stream
        )


def opened(reference: str, **options: Any) -> TableSource:
    source = open_training_data(reference, **{"seed": 0, "height": 64, "width": 64, **options})
    assert isinstance(source, TableSource)
    return source


def captions_of(source: TableSource) -> list[str]:
    count = source.examples.count
    assert count is not None
    return sorted(source.batch(range(count))[1])


def csv(text: bytes | str, name: str = "metadata.csv") -> Build:
    def build() -> None:
        for number in range(2):
            write(f"shots/{number}.png", png(number))
        write(f"shots/{name}", text)

    return build


def jsonl(*rows: Any) -> Build:
    return csv(lines(*rows), "metadata.jsonl")


def group(*pairs: tuple[str, bytes | str]) -> Build:
    return lambda: tar("shots/0.tar", pairs)
