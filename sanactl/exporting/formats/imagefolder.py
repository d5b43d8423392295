"""`imagefolder`: image files, and a metadata.jsonl with a line for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sanactl.exporting.formats.base import ImageFolders, write_lines
from sanactl.exporting.plan import ExportPlan
from sanactl.records.jsonl import dump_json

__all__ = ["ImageFolder"]

# `datasets` takes the columns' types from the first 10 MB of metadata.jsonl. A column that begins later would be null.
LATE = 2**20  # bytes of records


class ImageFolder(ImageFolders):
    """Images are copied byte for byte. Nested fields are text of JSON, since a column of `datasets` has one type.

    So is a column without a value in the first rows; it has "" where a record lacks the field.
    """

    name = "imagefolder"
    about = "Image files in `images/`, and `metadata.jsonl` with `file_name`, `text` and the other columns of each."

    def index_files(self, plan: ExportPlan) -> tuple[str, ...]:
        return ("metadata.jsonl",)

    def write_index(self, folder: Path, plan: ExportPlan) -> None:
        write_lines(folder / "metadata.jsonl", self._lines(plan))

    def _lines(self, plan: ExportPlan) -> Iterator[dict[str, Any]]:
        late = [name for name, column in plan.columns.by_name.items() if column.begins > LATE]
        for name, row in self.placed(plan):
            fields = row.fields
            for column in late:
                value = fields[column]
                if not isinstance(value, str):
                    fields[column] = "" if value is None else dump_json(value)
            yield {"file_name": name, **fields}

    def data_files(self) -> list[str]:
        return ["metadata.jsonl", "images/*/*"]
