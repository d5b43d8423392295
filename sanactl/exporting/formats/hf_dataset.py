"""`hf-dataset`: Arrow files as `Dataset.save_to_disk` writes them."""

from __future__ import annotations

import json
from pathlib import Path

from sanactl.exporting.arrow import image_features, schema_of, tables
from sanactl.exporting.formats.base import ExportFormat, write_json
from sanactl.exporting.plan import ExportPlan, Shard
from sanactl.files.atomic import atomic_path

__all__ = ["HfDataset"]


class HfDataset(ExportFormat):
    """The folder is mapped into memory by `datasets.load_from_disk`, without a copy in a cache."""

    name = "hf-dataset"
    about = "Arrow files as `Dataset.save_to_disk` writes them, for `datasets.load_from_disk`."

    def shard_files(self, number: int, shards: int) -> tuple[str, ...]:
        return (f"data-{number:05d}-of-{shards:05d}.arrow",)

    def write_shard(self, folder: Path, shard: Shard, plan: ExportPlan) -> None:
        import pyarrow as pa

        (name,) = self.shard_files(shard.number, len(plan.shards))
        schema = schema_of(plan.schema)
        with (
            atomic_path(folder / name, force=True) as temporary,
            pa.OSFile(str(temporary), "wb") as file,
            pa.ipc.new_stream(file, schema) as writer,
        ):
            for table in tables(plan.rows(shard), schema):
                writer.write_table(table)

    def index_files(self, plan: ExportPlan) -> tuple[str, ...]:
        return ("dataset_info.json", "state.json")

    def write_index(self, folder: Path, plan: ExportPlan) -> None:
        shards = len(plan.shards)
        files = [{"filename": name} for s in plan.shards for name in self.shard_files(s.number, shards)]
        info = {"citation": "", "description": "", "features": image_features(plan.schema), "homepage": "", "license": ""}  # fmt: skip
        write_json(folder / "dataset_info.json", info)
        write_json(
            folder / "state.json",
            {
                "_data_files": files,
                "_fingerprint": plan.key[:16],
                "_format_columns": None,
                "_format_kwargs": {},
                "_format_type": None,
                "_output_all_columns": False,
                "_split": None,
            },
        )

    def data_files(self) -> list[str]:
        return ["data-*.arrow"]

    def loading(self, folder: str) -> str:
        return f"dataset = datasets.load_from_disk({json.dumps(folder)})"
