"""Reading tables of image files, one row for each image: JSON lines, CSV, TSV or Parquet, such as `metadata.csv`."""

from __future__ import annotations

import csv
import json
import os
import posixpath
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sanactl.errors import InputError
from sanactl.files.regular import open_regular

__all__ = [
    "FILE_NAMES", "IMAGE_PATHS", "METADATA", "ImageNames", "Row", "first_line", "has_file_names", "has_kinds",
    "read_table", "text_columns",
]  # fmt: skip

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
# Columns of an image's name: in a metadata file, and in a table that is given by itself. The first that is filled counts.
FILE_NAMES = ("file_name", "image_file_name")
IMAGE_PATHS = (
    *FILE_NAMES, "image", "image_path", "img", "img_path", "path", "file", "file_path", "filename", "filepath",
)  # fmt: skip
MAX_BYTES = 4 * 2**30
MAX_LINE = 4 * 2**20
_HINT = 'a line is {"file_name": "0001.png", "text": "..."}'


@dataclass(frozen=True)
class Row:
    """A row of a table: its file and line for errors (`where`), the image's name, and the other columns."""

    where: str
    file_name: str
    cells: dict[str, Any]


def read_table(path: Path, columns: Sequence[str] = FILE_NAMES) -> Iterator[Row]:
    """The rows of a metadata file, or of another table of images.

    Args:
        columns: those that may hold an image's name.

    Raises:
        InputError: it is not UTF-8 or otherwise damaged, has no rows, or a row has no image's name.
    """
    reader = _READERS.get(path.suffix.lower(), _json_rows)
    empty = True
    with open_regular(path, most=MAX_BYTES) as stream:
        for where, cells in reader(stream, path, columns):
            empty = False
            column = next((c for c in columns if cells.get(c)), None)
            if column is None:
                raise InputError(f"{where}: has no {_any_of(columns)}", hint=_HINT)
            name = cells.pop(column)
            if not isinstance(name, str):
                raise InputError(f"{where}: its {column} is a {type(name).__name__}, not text", hint=_HINT)
            yield Row(where, name, cells)
    if empty:
        raise InputError(f"{path}: holds no rows", hint=_HINT)


def has_file_names(path: Path) -> bool:
    """Whether a Parquet file is a table of file names (other tables contain the images themselves).

    Raises:
        InputError: it is not a Parquet file.
    """
    with open_regular(path) as stream:
        return any(c in FILE_NAMES for c in _parquet(stream, path).schema_arrow.names)


def text_columns(path: Path) -> set[str]:
    """The columns of text of a Parquet file; none where a column holds images, or it is no Parquet file."""
    import pyarrow as pa

    try:
        with open_regular(path) as stream:
            schema = _parquet(stream, path).schema_arrow
    except InputError:
        return set()
    if any(_holds_bytes(field.type) for field in schema):
        return set()
    is_text = pa.types.is_string, pa.types.is_large_string
    return {field.name for field in schema if any(check(field.type) for check in is_text)}


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def first_line(path: Path) -> str:
    """The first line of a text file that is not blank, "" where there is none.

    Raises:
        InputError: it is not UTF-8 text.
    """
    with open_regular(path) as stream:
        return next((line for line in _lines(stream, path) if line.strip()), "")


def has_kinds(path: Path) -> bool:
    """Whether a file of JSON lines is one of records, as its first line tells: an object with a `kind`, or no object."""
    try:
        row = json.loads(first_line(path))
    except (ValueError, RecursionError):
        return True  # whoever reads records says what is wrong with it
    return not isinstance(row, dict) or "kind" in row


def _any_of(columns: Sequence[str]) -> str:
    """How errors call the columns of an image's name."""
    return "file_name" if tuple(columns) == FILE_NAMES else f"image path ({', '.join(columns)})"


def _lines(stream: IO[bytes], path: Path) -> Iterator[str]:
    """Lines of UTF-8 text with their ends."""
    number = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise InputError(f"{path}, line {number}: longer than {MAX_LINE >> 20} MiB")
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            byte = line[error.start]
            raise InputError(
                f"{path}, line {number}: not UTF-8 text (byte 0x{byte:02x})",
                hint="save it as UTF-8, for instance with iconv -f latin1 -t utf-8",
            ) from None


def _json_rows(stream: IO[bytes], path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(_lines(stream, path), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not JSON ({error})", hint=_HINT) from None
        if not isinstance(cells, dict):
            raise InputError(f"{where}: a JSON {type(cells).__name__}, not an object", hint=_HINT)
        yield where, cells


def _csv_rows(
    stream: IO[bytes], path: Path, columns: Sequence[str], delimiter: str = ","
) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.reader(_lines(stream, path), strict=True, delimiter=delimiter)
    header: list[str] | None = None
    try:
        for values in reader:
            where = f"{path}, line {reader.line_num}"
            if not values:
                continue
            if header is None:
                header = values
                if not set(columns) & set(header):
                    between = "tabs" if delimiter == "\t" else "commas"
                    raise InputError(
                        f"{where}: no column {_any_of(columns)}; it has {', '.join(header)[:200]}",
                        hint=f"the first line names the columns, with {between} between them:"
                        f" file_name{delimiter}text",
                    )
            elif len(values) != len(header):
                raise InputError(
                    f"{where}: {len(values)} cells, where the first line names {len(header)} columns",
                    hint='a cell with a comma in it stands in quotes: "red, round"',
                )
            else:
                yield where, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _tsv_rows(stream: IO[bytes], path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    return _csv_rows(stream, path, columns, "\t")


def _parquet(stream: IO[bytes], path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        return parquet.ParquetFile(stream)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a Parquet file ({str(error).splitlines()[0]})") from None


def _parquet_rows(
    stream: IO[bytes], path: Path, columns: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa

    file = _parquet(stream, path)
    if file.metadata.num_rows and not set(columns) & set(file.schema_arrow.names):
        there = ", ".join(file.schema_arrow.names)[:200]
        raise InputError(f"{path}: no column {_any_of(columns)}; it has {there}")
    size = sum(file.metadata.row_group(g).total_byte_size for g in range(file.metadata.num_row_groups))
    if size > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES >> 30} GiB when it is unpacked")
    number = 0
    try:
        for batch in file.iter_batches(batch_size=1000):
            for cells in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", cells
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read past row {number} ({str(error).splitlines()[0]})") from None


_READERS: dict[str, Callable[[IO[bytes], Path, Sequence[str]], Iterator[tuple[str, dict[str, Any]]]]] = {
    ".csv": _csv_rows,
    ".tsv": _tsv_rows,
    ".parquet": _parquet_rows,
}


class ImageNames:
    """Which file of a folder a metadata row names.

    Args:
        root: the folder.
        files: those in it, as `list_folder` gives them.
    """

    def __init__(self, root: Path, files: Sequence[str]) -> None:
        self.root, self.files = root, frozenset(files)
        self._by_form: dict[str, list[str]] | None = None

    def find(self, row: Row, folder: str) -> str | None:
        """The file's path below the root; None where there is no such file.

        "./a.png" and "x/../a.png" name a.png; "x\\a.png" names x/a.png, unless there is a file of that very name. One
        that is written in Unicode's other normal form (as macOS writes names) is found, too.

        Args:
            folder: where the metadata file lies, below the root; names are relative to it.

        Raises:
            InputError: the name leads out of the root, or is none.
        """
        name = row.file_name
        if not name.isascii() and any("\ud800" <= c <= "\udfff" for c in name):
            raise InputError(f"{row.where}: its file_name is not Unicode text")
        for spelled in dict.fromkeys((name, name.replace("\\", "/"))):
            path = posixpath.normpath(posixpath.join(folder, spelled))
            if spelled.startswith("/") or path == ".." or path.startswith("../"):
                raise InputError(
                    f"{row.where}: file_name {name!r} leads out of {self.root}",
                    hint="names are relative to the metadata file's folder, and stay in the folder that --data names",
                )
            if path == "." or "\0" in path:
                raise InputError(f"{row.where}: file_name {name!r} names no file")
            if path in self.files or os.path.lexists(self.root / path):
                return path
            if (other := self._in_other_form(path)) is not None:
                return other
        return None

    def _in_other_form(self, path: str) -> str | None:
        if path.isascii():
            return None
        if self._by_form is None:
            self._by_form = {}
            for file in self.files:
                if not file.isascii():
                    self._by_form.setdefault(unicodedata.normalize("NFC", file), []).append(file)
        found = self._by_form.get(unicodedata.normalize("NFC", path), [])
        return found[0] if len(found) == 1 else None
