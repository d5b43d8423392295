"""Tables of the `datasets` library: rows of Arrow files by number."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sanactl.data.captions import DEFAULT_COLUMNS, CaptionChoice, find_columns, text_of
from sanactl.data.listing import digest_of
from sanactl.data.tables import described, header_size
from sanactl.data.tar import Piece
from sanactl.errors import InputError
from sanactl.files.images import MAX_BYTES, read_image

__all__ = ["DatasetTable", "columns_of", "image_of"]


class DatasetTable:
    """A `datasets.Dataset`: Parquet files, a saved dataset, or a dataset of the Hub.

    Args:
        table: the dataset.
        name: what the user called it.
        what: the kind of thing, for people.
        identity: of its files or its revision.
        captions: what `--captions` says, or None.

    Raises:
        InputError: it has no rows, no images or no captions.
    """

    def __init__(
        self,
        table: Any,
        name: str,
        what: str,
        identity: str,
        captions: str | None = None,
    ) -> None:
        import datasets

        self.name, self.count = name, len(table)
        if not self.count:
            raise InputError(f"{name}: no images")
        self.images, columns = columns_of(table.features, name)
        # read_image decodes: it bounds the size of what it opens.
        for column in self.images:
            table = table.cast_column(column, datasets.Image(decode=False))
        self.table = table
        self.captions = self._choice(captions, columns)
        self._text = table.select_columns(_roots(self.captions.columns, table.column_names))
        self._image = table.select_columns(self.images)
        empty = self._count_empty()
        if empty == self.count:
            raise InputError(
                f"{name}: no row has a caption: {' and '.join(self.captions.columns)} is empty in all {empty:,}",
                hint="name another column with --captions",
            )
        self.about = described(self.count, name, what, [], empty)
        self.identity = digest_of([identity, str(self.captions)])

    def _choice(self, asked: str | None, columns: Sequence[str]) -> CaptionChoice:
        """The columns that were asked for, else the first that has text in any row, as tables of folders have it."""
        if asked is None:
            for column in [c for c in DEFAULT_COLUMNS if c in columns]:
                cells = self.table.select_columns(_roots([column], self.table.column_names))
                if any(text_of(row, column, self._where(n)) for n, row in enumerate(_rows(cells))):
                    return CaptionChoice((column,), (1.0,))
        return find_columns(columns, asked, self.name)

    def _count_empty(self) -> int:
        """How many rows have no text in any of the columns."""
        rows = enumerate(_rows(self._text))
        return sum(
            not any(text_of(cells, c, self._where(n)) for c in self.captions.columns) for n, cells in rows
        )

    def _where(self, row: int) -> str:
        return f"{self.name}, row {row}"

    def image(self, row: int) -> NDArray[np.uint8]:
        return image_of(self._image[row], self.images, lambda: self._where(row))

    def texts(self, row: int) -> list[str]:
        cells = self._text[row]
        return [text_of(cells, column, self._where(row)) for column in self.captions.columns]

    def sizes(self) -> Iterator[tuple[int, int]]:
        """(height, width) of each row from the images' headers, (0, 0) where there is no readable one."""
        for row in self._image:
            try:
                yield header_size(_entry(row, self.images, lambda: self.name))
            except InputError:
                yield 0, 0


def _rows(table: Any) -> Iterator[dict[str, Any]]:
    """The cells of each row, a thousand rows at a time: ten times as fast as one by one."""
    for batch in table.with_format("arrow").iter(batch_size=1000):
        yield from batch.to_pylist()


def _roots(columns: Sequence[str], there: Sequence[str]) -> list[str]:
    """The columns that hold these, `a` for field `a.b`."""
    return sorted({c if c in there else c.split(".")[0] for c in columns})


def columns_of(features: Mapping[str, Any], name: str) -> tuple[list[str], list[str]]:
    """The columns that hold images, and those that may hold text (`a.b` for field b of column a).

    Raises:
        InputError: there is no image column.
    """
    import datasets

    images = [c for c, kind in features.items() if isinstance(kind, datasets.Image)]
    if "image" in features:  # one without the type, as Parquet files of other programs have it
        images = ["image", *(c for c in images if c != "image")]
    texts: list[str] = []
    for column, kind in features.items():
        if isinstance(kind, Mapping) and column not in images:
            texts += [f"{column}.{field}" for field in kind]
        elif column not in images and not column.startswith("__"):
            texts.append(column)
    if not images:
        raise InputError(
            f"{name}: has columns {', '.join(features)} but needs image and a caption",
            hint="put a metadata.jsonl with file_name and text beside the images",
        )
    return images, texts


def image_of(row: Mapping[str, Any], columns: Sequence[str], where: Callable[[], str]) -> NDArray[np.uint8]:
    """Decodes the image of a row.

    Args:
        row: cells of `datasets.Image(decode=False)`, {"bytes", "path"}, or a `Piece` of a file.
        columns: where it may be; the first that is filled counts.
        where: names the row, for an error.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    source = _entry(row, columns, where)
    return read_image(source) if isinstance(source, Path) else read_image(source, name=where())


def _entry(row: Mapping[str, Any], columns: Sequence[str], where: Callable[[], str]) -> Path | IO[bytes]:
    for column in columns:
        cell = row.get(column)
        if cell is None:
            continue
        if isinstance(cell, Piece):
            return cell.read()
        if cell.get("bytes") is not None:
            return io.BytesIO(cell["bytes"])
        path = cell.get("path")
        if path and "://" in path:
            return _remote(path, where())
        if path:
            return Path(path)
    raise InputError(f"{where()}: no image")


def _remote(path: str, where: str) -> io.BytesIO:
    """An image file on a remote file system (`hf://...`), read whole."""
    import fsspec

    try:
        with fsspec.open(path, "rb") as file:
            return io.BytesIO(file.read(MAX_BYTES))
    except Exception as error:  # each file system raises its own
        raise InputError(f"{where}: {path} cannot be read ({error})") from error
