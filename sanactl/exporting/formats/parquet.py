"""`parquet`: tables with the images in them, as the Hub stores datasets."""

from __future__ import annotations

from pathlib import Path

from sanactl.exporting.arrow import schema_of, tables
from sanactl.exporting.formats.base import ExportFormat
from sanactl.exporting.plan import ExportPlan, Shard
from sanactl.files.atomic import atomic_path

__all__ = ["Parquet"]


class Parquet(ExportFormat):
    """Columns are `image` ({bytes, path}, the Image feature of `datasets`), `text` and the others."""

    name = "parquet"
    about = "Parquet files in `data/`, with the images in the column `image`."

    def shard_files(self, number: int, shards: int) -> tuple[str, ...]:
        return (f"data/train-{number:05d}-of-{shards:05d}.parquet",)

    def write_shard(self, folder: Path, shard: Shard, plan: ExportPlan) -> None:
        from pyarrow import parquet

        (folder / "data").mkdir(exist_ok=True)
        (name,) = self.shard_files(shard.number, len(plan.shards))
        schema = schema_of(plan.schema)
        # Image files are compressed already.
        compression = {
            column: "NONE" if column.startswith("image.") else "SNAPPY" for column in _leaves(plan)
        }
        with (
            atomic_path(folder / name, force=True) as temporary,
            parquet.ParquetWriter(
                temporary, schema, compression=compression, write_page_index=True
            ) as writer,
        ):
            for table in tables(plan.rows(shard), schema):
                writer.write_table(table, row_group_size=len(table))

    def index_files(self, plan: ExportPlan) -> tuple[str, ...]:
        return ()

    def write_index(self, folder: Path, plan: ExportPlan) -> None:
        pass

    def data_files(self) -> list[str]:
        return ["data/train-*.parquet"]


def _leaves(plan: ExportPlan) -> list[str]:
    """The columns as Parquet stores them."""
    return ["image.bytes", "image.path", *plan.schema]
