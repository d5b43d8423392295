"""Small real training data: pictures of the built-in world with captions, as folders, tars and records."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from sanactl.shapes.dataset import training_example

SQUARE = ((64, 64),)
MIXED = ((64, 64), (96, 48), (48, 96), (64, 80))  # (width, height)


def picture(index: int, size: tuple[int, int] = (64, 64)) -> tuple[Image.Image, str]:
    """A picture of the built-in world, stretched to (width, height), and its caption."""
    example = training_example(index)
    return example["image"].resize(size), example["text"]


def write_folder(folder: Path, count: int, sizes: Sequence[tuple[int, int]] = SQUARE) -> Path:
    """An imagefolder with columns `text`, and `short`, which every third row leaves empty."""
    folder.mkdir()
    lines = []
    for i in range(count):
        image, text = picture(i, sizes[i % len(sizes)])
        image.save(folder / f"{i:03d}.png")
        row = {"file_name": f"{i:03d}.png", "text": text, "short": "" if i % 3 == 0 else f"short {i}"}
        lines.append(json.dumps(row))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def write_tars(folder: Path, shards: int, each: int, kind: str = "PNG") -> Path:
    """A webdataset: pictures with .txt and .json beside them."""
    folder.mkdir()
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:03d}.tar", "w") as tar:
            for i in range(each):
                number = shard * each + i
                image, text = picture(number)
                data = io.BytesIO()
                image.save(data, kind)
                about = json.dumps({"short": f"short {number}", "number": number})
                for suffix, content in (
                    (kind.lower(), data.getvalue()), ("txt", text.encode()), ("json", about.encode()),
                ):  # fmt: skip
                    member = tarfile.TarInfo(f"{number:05d}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return folder


def spoil(path: Path) -> None:
    """Cuts an image file short: its header stays readable."""
    path.write_bytes(path.read_bytes()[:80])


def image_records(folder: Path, **more: Any) -> list[dict[str, Any]]:
    """A record for each picture of a folder."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    return [
        {"kind": "image", "path": str(folder / r["file_name"]), "prompt": r["text"], **more} for r in rows
    ]
