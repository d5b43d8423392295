"""Which column of a table has the prompts, and the rows of a Parquet file with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.files.regular import open_regular
from sanactl.records.records import MAX_HELD

__all__ = ["Row", "find_column", "no_column", "parquet_rows"]

COLUMNS = ("prompt", "text", "caption")
# Where it stands, for errors, and its cells by column.
Row = tuple[str, dict[str, Any]]


def find_column(names: Iterable[str]) -> str | None:
    """The column of prompts: named prompt, text or caption, in this order, in any case of letters; None without."""
    there = {name.casefold(): name for name in reversed([*names])}
    return next((there[name] for name in COLUMNS if name in there), None)


def no_column(where: str, column: str | None, names: Iterable[str]) -> InputError:
    """The error where the column of prompts is not there."""
    wanted = ", ".join(COLUMNS) if column is None else repr(column)
    return InputError(
        f"{where}: no column {wanted}; it has {', '.join(names)[:200]}",
        hint="FILE#COLUMN names the column of the prompts",
    )


def parquet_rows(path: Path, column: str | None) -> Iterator[Row]:
    """The rows of a Parquet file: text and numbers, and GenEval's clauses. Images and the like are not read.

    Raises:
        InputError: it cannot be read, is damaged or too large, or has no column of prompts.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    number = 0
    with open_regular(path, what="prompt file") as stream:
        try:
            file = parquet.ParquetFile(stream)
            schema = file.schema_arrow
            chosen = column if column is not None else find_column(schema.names)
            if chosen is None or chosen not in schema.names:
                raise no_column(str(path), column, schema.names)
            names = [f.name for f in schema if f.name == chosen or _is_plain(pa, f)]
            if (size := _bytes_of(file, names)) > MAX_HELD:
                raise InputError(f"{path}: {size >> 20:,} MiB of text and numbers, too many to hold at once")
            for batch in file.iter_batches(batch_size=1000, columns=names):
                for cells in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", {name: _filled(value) for name, value in cells.items()}
        except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
            what = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            past = f" past row {number:,}" if number else ""
            raise InputError(f"{path}: cannot be read{past} as Parquet ({what})") from None


def _is_plain(pa: Any, field: Any) -> bool:
    kind, types = field.type, pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if field.name in ("include", "exclude"):
        return bool(types.is_list(kind) or types.is_large_list(kind))
    tests = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    return any(test(kind) for test in tests)


def _bytes_of(file: Any, names: list[str]) -> int:
    """The unpacked bytes of columns."""
    total = 0
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        chunks = (group.column(place) for place in range(group.num_columns))
        total += sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] in names)
    return total


def _filled(value: Any) -> Any:
    """A value without what is null in it: in a table every clause has a colour and a position, if only an empty one."""
    if isinstance(value, list):
        return [_filled(item) for item in value]
    if isinstance(value, dict):
        return {name: _filled(item) for name, item in value.items() if item is not None}
    return value
