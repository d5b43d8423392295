"""`webdataset`: .tar files with an image, its text and its other fields as files of one name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sanactl.exporting.arrow import listed_features
from sanactl.exporting.formats.base import ExportFormat
from sanactl.exporting.formats.tars import image_members, write_tar
from sanactl.exporting.plan import ExportPlan, Shard
from sanactl.exporting.rows import Row
from sanactl.records.jsonl import dump_json

__all__ = ["Webdataset"]


class Webdataset(ExportFormat):
    """Members are `00000000.png`, `.txt` with the text, `.json` with the other columns."""

    name = "webdataset"
    about = "`.tar` files; of each image `KEY.png` (or `.jpg`, by its content), `KEY.txt` and `KEY.json`."

    def shard_files(self, number: int, shards: int) -> tuple[str, ...]:
        return (f"{number:05d}.tar",)

    def write_shard(self, folder: Path, shard: Shard, plan: ExportPlan) -> None:
        (name,) = self.shard_files(shard.number, len(plan.shards))
        write_tar(folder / name, _members(plan.rows(shard)))

    def index_files(self, plan: ExportPlan) -> tuple[str, ...]:
        return ()

    def write_index(self, folder: Path, plan: ExportPlan) -> None:
        pass

    def data_files(self) -> list[str]:
        return ["*.tar"]

    def features(self, plan: ExportPlan) -> list[dict[str, Any]]:
        # Without them `datasets` takes the types from the first five rows, where a field may still be empty.
        inner = {name: kind for name, kind in plan.schema.items() if name != "text"}
        return [
            *image_members(plan),
            {"name": "json", "struct": listed_features(inner)},
            {"name": "txt", "dtype": "string"},
        ]


def _members(rows: Iterator[Row]) -> Iterator[tuple[str, bytes]]:
    for row in rows:
        fields = row.fields
        text = fields.pop("text")
        yield f"{row.key}{row.picture.suffix}", row.read()
        yield f"{row.key}.json", dump_json(fields).encode()
        yield f"{row.key}.txt", text.encode()
