"""A folder of images with metadata files, read where it lies: no copy, no cache, no guess at splits."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanactl.data.bad import check_bad
from sanactl.data.caption_columns import CaptionColumns
from sanactl.data.listing import identity_of_files
from sanactl.data.metadata import ImageNames, read_metadata
from sanactl.data.tables import described, header_size
from sanactl.errors import InputError
from sanactl.files.images import read_image

__all__ = ["FolderTable"]


class FolderTable:
    """Images that metadata files describe: a row for each row of these, in their order.

    Args:
        name: what the user called the folder.
        root: the folder.
        metadata: its metadata files, as paths below the root.
        images: the image files in it.
        captions: what `--captions` says, or None.
        left_out: lines about other files in the folder that are not used.
        max_bad: how many files may be missing.

    Raises:
        InputError: metadata that cannot be read, that tell of one image in two files, or of images that are missing;
            no captions.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        metadata: Sequence[str],
        images: Sequence[str],
        captions: str | None = None,
        *,
        left_out: Sequence[str] = (),
        max_bad: int = 0,
    ) -> None:
        import pyarrow as pa

        self.name, self.root = name, root
        _check_one_a_folder(root, metadata)
        names, columns = ImageNames(root, images), CaptionColumns(captions, name)
        self._missing: list[InputError] = []
        found: list[str] = []
        told_by: dict[str, str] = {}
        for file in metadata:
            for row in read_metadata(root / file):
                path = names.find(row, posixpath.dirname(file))
                if path is None:
                    path = posixpath.join(posixpath.dirname(file), row.file_name)
                    self._missing.append(InputError(f"{root / path}: no such image ({row.where})"))
                elif told_by.setdefault(path, file) != file:
                    raise InputError(
                        f"{root / path}: both {root / told_by[path]} and {root / file} tell of it",
                        hint="keep one of the two metadata files",
                    )
                found.append(path)
                columns.add(row.cells, row.where)
        self.count = len(found)
        if len(self._missing) == self.count:
            raise InputError(
                f"{name}: none of the images that its metadata name is there: {self._missing[0]}"
            )
        if self._missing:
            check_bad(len(self._missing), max_bad, self._missing[0])
        self._captions = columns.choose()
        self.captions = self._captions.choice
        self._paths = pa.array([os.fsencode(path) for path in found], pa.large_binary())
        left = [*left_out]
        if without := sum(image not in told_by for image in images):
            left.insert(0, f"{without:,} of {len(images):,} images, which have no line in {_names(metadata)}")
        self.about = described(
            self.count, name, f"images with {_names(metadata)}", left, self._captions.empty
        )
        self.identity = identity_of_files(root, [*metadata, *dict.fromkeys(found)], str(self.captions))

    @property
    def table(self) -> FolderTable:
        """Rows by number, as those of `DatasetTable.table`."""
        return self

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"image": {"bytes": None, "path": str(self._path(row))}}

    def _path(self, row: int) -> Path:
        return self.root / os.fsdecode(self._paths[row].as_py())

    def image(self, row: int) -> NDArray[np.uint8]:
        return read_image(self._path(row))

    def texts(self, row: int) -> list[str]:
        return self._captions.of(row)

    def sizes(self) -> Iterator[tuple[int, int]]:
        """(height, width) of each row from the files' headers, (0, 0) where there is no readable one."""
        return (header_size(self._path(row)) for row in range(self.count))


def _names(metadata: Sequence[str]) -> str:
    return metadata[0] if len(metadata) == 1 else f"{len(metadata)} metadata files"


def _check_one_a_folder(root: Path, metadata: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for file in metadata:
        other = seen.setdefault(posixpath.dirname(file), file)
        if other != file:
            raise InputError(
                f"{root}: has {other} and {file}",
                hint="keep one of the two, or name one: --data FOLDER/metadata.csv",
            )
