"""`imagefolder`: image files, and a metadata.jsonl with a line for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sanactl.exporting.arrow import listed_features
from sanactl.exporting.formats.base import ImageFolders, write_lines
from sanactl.exporting.plan import ExportPlan

__all__ = ["ImageFolder"]


class ImageFolder(ImageFolders):
    """Images are copied byte for byte. Nested fields are text of JSON, since a column of `datasets` has one type."""

    name = "imagefolder"
    about = "Image files in `images/`, and `metadata.jsonl` with `file_name`, `text` and the other columns of each."

    def index_files(self, plan: ExportPlan) -> tuple[str, ...]:
        return ("metadata.jsonl",)

    def write_index(self, folder: Path, plan: ExportPlan) -> None:
        write_lines(
            folder / "metadata.jsonl", ({"file_name": name, **row.fields} for name, row in self.placed(plan))
        )

    def data_files(self) -> list[str]:
        return ["metadata.jsonl", "images/*/*"]

    def features(self, plan: ExportPlan) -> list[dict[str, Any]]:
        return [{"name": "image", "dtype": "image"}, *listed_features(plan.schema)]
