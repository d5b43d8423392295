"""Rows as Arrow tables with the features of `datasets` in the schema, so that its readers know what an image is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sanactl.exporting.rows import Row

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["image_features", "listed_features", "schema_of", "tables"]

# Rows of one table; `datasets` reads an image table in groups of 100.
MOST_ROWS = 100
MOST_BYTES = 64 * 2**20


def image_features(types: Mapping[str, str]) -> dict[str, Any]:
    """The features of a table with an image and columns, as `datasets` writes them into a schema."""
    columns = {name: {"dtype": kind, "_type": "Value"} for name, kind in types.items()}
    return {"image": {"_type": "Image"}, **columns}


def listed_features(types: Mapping[str, str]) -> list[dict[str, str]]:
    """Columns as a dataset card lists them."""
    return [{"name": name, "dtype": kind} for name, kind in types.items()]


def schema_of(types: Mapping[str, str]) -> pa.Schema:
    """The schema of a table: `image` {bytes, path} and columns, with their features in the metadata."""
    import pyarrow as pa

    arrow = {"bool": pa.bool_(), "int64": pa.int64(), "float64": pa.float64(), "string": pa.string()}
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    fields = [pa.field("image", image), *(pa.field(name, arrow[kind]) for name, kind in types.items())]
    about = json.dumps({"info": {"features": image_features(types)}})
    return pa.schema(fields, metadata={"huggingface": about})


def tables(rows: Iterator[Row], schema: pa.Schema) -> Iterator[pa.Table]:
    """Rows as tables of at most 100 rows and about 64 MB of images.

    Raises:
        InputError: an image has changed since it was looked at.
    """
    import pyarrow as pa

    held: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        if held and (len(held) >= MOST_ROWS or size + row.picture.size > MOST_BYTES):
            yield pa.Table.from_pylist(held, schema=schema)
            held, size = [], 0
        image = {"bytes": row.read(), "path": f"{row.key}{row.picture.suffix}"}
        held.append({"image": image, **row.fields})
        size += row.picture.size
    if held:
        yield pa.Table.from_pylist(held, schema=schema)
