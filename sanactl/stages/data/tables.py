"""Examples by number: records, datasets, the built-in world. An image is decoded when it is asked for, and no sooner."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sanactl.errors import InputError
from sanactl.io.images import MAX_BYTES, image_size, read_image
from sanactl.stages.data.captions import CaptionChoice, find_columns, text_of

__all__ = ["DatasetTable", "Examples", "RecordTable", "ShapesTable", "columns_of", "digest_of", "image_of"]


class Examples(Protocol):
    """Images with captions, by number.

    Attributes:
        name: what a person calls them.
        identity: a text that is another one where the pairs are.
        captions: the columns to take captions from.
    """

    name: str
    identity: str
    captions: CaptionChoice

    @property
    def count(self) -> int | None:
        """How many there are, None where they have no end or no known one."""

    def image(self, row: int) -> NDArray[np.uint8]:
        """uint8 [height, width, 3], as large as it is stored.

        Raises:
            InputError: it cannot be read; the message names it.
            EndOfExamples: there are no so many.
        """

    def texts(self, row: int) -> list[str]:
        """The row's caption in each of the columns, "" where it has none."""


class RecordTable:
    """`image` records: the image at `path` with the prompt that it was made for, or other fields as captions."""

    def __init__(self, records: Sequence[dict[str, Any]], captions: str | None = None) -> None:
        if not records:
            raise InputError("no image records to train on")
        self.records, self.count = list(records), len(records)
        self.name = f"{len(records)} image records"
        fields = {field: None for record in self.records for field in record}
        self.captions = find_columns(fields, captions or "prompt", self.name)
        self.identity = digest_of(
            [str(self.captions)]
            + [f"{r['path']}\0{_stamp(r['path'])}\0{self.texts(row)}" for row, r in enumerate(self.records)]
        )

    def image(self, row: int) -> NDArray[np.uint8]:
        return read_image(Path(self.records[row]["path"]))

    def texts(self, row: int) -> list[str]:
        record = self.records[row]
        return [
            text_of(record, column, f"the record of {record['path']}") for column in self.captions.columns
        ]

    def sizes(self) -> Iterator[tuple[int, int]]:
        """(height, width) of each row from the files' headers, (0, 0) where there is no readable one."""
        return (_header_size(Path(r["path"])) for r in self.records)


class DatasetTable:
    """A `datasets.Dataset` in Arrow files: a folder of images or shards, or a dataset of the Hub.

    Args:
        table: the dataset.
        name: what the user called it.
        identity: of its files or its revision.
        captions: what `--captions` says, or None.
    """

    def __init__(self, table: Any, name: str, identity: str, captions: str | None = None) -> None:
        import datasets

        self.name, self.count = name, len(table)
        if not self.count:
            raise InputError(f"{name}: no images")
        self.images, columns = columns_of(table.features, name)
        self.captions = find_columns(columns, captions, name)
        self.identity = digest_of([identity, str(self.captions)])
        # Decoding is left to read_image, which bounds the size of what it opens.
        for column in self.images:
            table = table.cast_column(column, datasets.Image(decode=False))
        self.table = table
        wanted = {c if c in table.column_names else c.split(".")[0] for c in self.captions.columns}
        self._text = table.select_columns(sorted(wanted))
        self._image = table.select_columns(self.images)

    def image(self, row: int) -> NDArray[np.uint8]:
        return image_of(self._image[row], self.images, lambda: f"{self.name}, row {row}")

    def texts(self, row: int) -> list[str]:
        cells = self._text[row]
        return [text_of(cells, column, f"{self.name}, row {row}") for column in self.captions.columns]

    def sizes(self) -> Iterator[tuple[int, int]]:
        """(height, width) of each row from the images' headers, (0, 0) where there is no readable one."""
        for row in self._image:
            try:
                yield _header_size(_entry(row, self.images, lambda: self.name))
            except InputError:
                yield 0, 0


class ShapesTable:
    """The built-in world's training stream: rendered when asked for, its prompts disjoint from evaluation's."""

    name = identity = "builtin:shapes"
    captions = CaptionChoice(("prompt",), (1.0,))
    count = None

    def __init__(self, seed: int, size: int = 64) -> None:
        self.seed, self.side = seed, size

    def image(self, row: int) -> NDArray[np.uint8]:
        from sanactl.shapes.dataset import batch

        image: NDArray[np.uint8] = batch([row], seed=self.seed, size=self.side)[0][0]
        return image

    def texts(self, row: int) -> list[str]:
        from sanactl.shapes.dataset import scene_and_prompt

        return [scene_and_prompt(row, self.seed)[1]["prompt"]]


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
        row: cells of `datasets.Image(decode=False)`: {"bytes", "path"}.
        columns: where it may be; the first that is filled counts (a webdataset may mix jpg and png).
        where: names the row, for an error.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    source = _entry(row, columns, where)
    if isinstance(source, Path):
        return read_image(source)
    try:
        return read_image(source)
    except InputError as error:
        raise InputError(f"{where()}: {error.message}") from error


def _entry(row: Mapping[str, Any], columns: Sequence[str], where: Callable[[], str]) -> Path | io.BytesIO:
    for column in columns:
        cell = row.get(column)
        if cell is None:
            continue
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


def _header_size(source: Path | io.BytesIO) -> tuple[int, int]:
    """(height, width) of an image as it is read; (0, 0) where it is none or too large to be."""
    try:
        return image_size(source)
    except InputError:
        return 0, 0


def _stamp(path: str) -> str:
    """Size and time of a file's last change, "" where it is not there."""
    try:
        stat = os.stat(path)
    except OSError:
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns}"


def digest_of(lines: Iterable[str]) -> str:
    """A fingerprint of lines of text."""
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
