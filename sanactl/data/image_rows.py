"""The rows of image files with their captions, from metadata files, text files or tables of paths."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanactl.data.listing import suffix_of
from sanactl.data.metadata import IMAGE_PATHS, ImageNames, Row, read_table
from sanactl.errors import InputError
from sanactl.files.regular import open_regular

__all__ = ["SIDE_FILES", "ImageRow", "metadata_rows", "side_file_rows", "table_rows"]

# Endings of the text files beside images; without the dot they are the columns' names.
SIDE_FILES = (".txt", ".caption")
_MAX_TEXT = 2**20


@dataclass(frozen=True)
class ImageRow:
    """An image and what is said of it.

    Attributes:
        path: the file, below the folder that the data are in, or from the root of the file system.
        cells: what may be its captions, by column; an `InputError` tells why a cell cannot be read.
        where: the line or the file that names it, for errors.
        is_there: whether there is such a file.
    """

    path: str
    cells: Mapping[str, Any]
    where: str
    is_there: bool = True


def metadata_rows(root: Path, metadata: Sequence[str], images: Sequence[str]) -> Iterator[ImageRow]:
    """The rows of a folder's metadata files, in their order.

    Args:
        root: the folder.
        metadata: the files, as paths below it. Names in a file are relative to the folder that this file is in.
        images: the image files in the folder.

    Raises:
        InputError: a folder has two metadata files, two tell of one image, or a row cannot be read.
    """
    _check_one_a_folder(root, metadata)
    names = ImageNames(root, images)
    told_by: dict[str, str] = {}
    for file in metadata:
        folder = posixpath.dirname(file)
        for row in read_table(root / file):
            path = names.find(row, folder)
            if path is None:
                yield ImageRow(posixpath.join(folder, row.file_name), row.cells, row.where, is_there=False)
                continue
            if told_by.setdefault(path, file) != file:
                raise InputError(
                    f"{root / path}: both {root / told_by[path]} and {root / file} tell of it",
                    hint="keep one of the two metadata files",
                )
            yield ImageRow(path, row.cells, row.where)


def _check_one_a_folder(root: Path, metadata: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for file in metadata:
        other = seen.setdefault(posixpath.dirname(file), file)
        if other != file:
            raise InputError(
                f"{root}: has {other} and {file}",
                hint="keep one of the two, or name one: --data FOLDER/metadata.csv",
            )


def side_file_rows(root: Path, images: Sequence[str], texts: Sequence[str]) -> Iterator[ImageRow]:
    """The images that have a text file of the same name beside them: `a/1.png` and `a/1.txt`.

    Args:
        root: the folder.
        images, texts: its image files and its text files, as paths below it.
    """
    beside: dict[str, dict[str, str]] = {}
    for text in texts:
        stem, _ = os.path.splitext(text)
        beside.setdefault(stem, {})[suffix_of(text)[1:]] = text
    for image in images:
        found = beside.get(os.path.splitext(image)[0])
        if found:
            cells = {column: _read_text(root / text) for column, text in found.items()}
            yield ImageRow(image, cells, str(root / next(iter(found.values()))))


def _read_text(path: Path) -> str | InputError:
    """A text file's content; why it cannot be read counts only where its column is chosen."""
    try:
        with open_regular(path, most=_MAX_TEXT) as stream:
            data = stream.read()
    except InputError as error:
        return error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return InputError(
            f"{path}: not UTF-8 text (byte 0x{data[error.start]:02x})",
            hint="save it as UTF-8, for instance with iconv -f latin1 -t utf-8",
        )


def table_rows(root: Path, tables: Sequence[str]) -> Iterator[ImageRow]:
    """The rows of tables of image paths. A path is relative to the folder that its table is in, or absolute.

    Args:
        root: the folder that the tables are in.
        tables: as paths below it.

    Raises:
        InputError: a row cannot be read, or has no image path.
    """
    for table in tables:
        folder = posixpath.dirname(table)
        for row in read_table(root / table, IMAGE_PATHS):
            path, is_there = _find_image(row, root, folder)
            yield ImageRow(path, row.cells, row.where, is_there)


def _find_image(row: Row, root: Path, folder: str) -> tuple[str, bool]:
    name = row.file_name
    if "\0" in name or any("\ud800" <= c <= "\udfff" for c in name):
        raise InputError(f"{row.where}: its image path is not a file's name")
    for spelled in dict.fromkeys((name, name.replace("\\", "/"))):
        path = posixpath.normpath(posixpath.join(folder, spelled))
        if os.path.lexists(root / path):
            return path, True
    return posixpath.join(folder, name), False
