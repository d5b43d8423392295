"""Image files with captions, read in place, without a copy or a cache."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sanactl.data.bad import check_bad
from sanactl.data.caption_columns import CaptionColumns
from sanactl.data.image_rows import ImageRow
from sanactl.data.listing import identity_of_files
from sanactl.data.scored_captions import ScoreRule
from sanactl.data.tables import described, header_size
from sanactl.errors import InputError
from sanactl.files.images import read_image

__all__ = ["ImageFiles", "Listing"]


@dataclass(frozen=True)
class Listing:
    """Where image files are listed.

    Attributes:
        name: what the user called the data.
        root: the folder that paths are relative to.
        files: the files that tell of the images, as paths below the root.
        what: the kind of data, for people.
        images: all image files in the folder; those without a row are told of as left out.
        lacking: what these do not have ("have no line in metadata.jsonl").
        left_out: lines about other files that are not used.
    """

    name: str
    root: Path
    files: tuple[str, ...]
    what: str
    images: tuple[str, ...] = ()
    lacking: str = ""
    left_out: tuple[str, ...] = ()


class ImageFiles:
    """Images in files of their own, by number: a row of the listing each, in its order.

    Args:
        listing: where the rows come from.
        rows: the images with what is said of them.
        captions: what `--captions` says, or None.
        max_bad: how many files may be missing.
        rule: of the choice among captions by their scores, or None.

    Raises:
        InputError: of the rows; images that are missing; no captions.
    """

    def __init__(
        self,
        listing: Listing,
        rows: Iterable[ImageRow],
        captions: str | None = None,
        max_bad: int = 0,
        rule: ScoreRule | None = None,
    ) -> None:
        import pyarrow as pa

        self.name, self.root = listing.name, listing.root
        columns = CaptionColumns(captions, self.name, rule=rule)
        paths: list[str] = []
        missing: list[InputError] = []
        there: set[str] = set()
        for row in rows:
            paths.append(row.path)
            columns.add(row.cells, row.where)
            if row.is_there:
                there.add(row.path)
            else:
                missing.append(InputError(f"{self.root / row.path}: no such image ({row.where})"))
        if not there:
            raise InputError(f"{self.name}: none of the images that its metadata name is there: {missing[0]}")
        if missing:
            check_bad(len(missing), max_bad, missing[0])
        self._captions = columns.choose()
        self.captions = self._captions.choice
        if self._captions.rows is not None:
            paths = [paths[row] for row in self._captions.rows]
        self.count = len(paths)
        self._paths = pa.array([os.fsencode(path) for path in paths], pa.large_binary())
        left = list(listing.left_out)
        if without := sum(image not in there for image in listing.images):
            left.insert(0, f"{without:,} of {len(listing.images):,} images, which {listing.lacking}")
        left += self._captions.left_out
        self.about = described(self.count, self.name, listing.what, left, self._captions.empty)
        self.identity = identity_of_files(
            self.root, [*listing.files, *dict.fromkeys(paths)], self.captions.identity
        )

    def _path(self, row: int) -> Path:
        return self.root / os.fsdecode(self._paths[row].as_py())

    def image(self, row: int) -> NDArray[np.uint8]:
        return read_image(self._path(row))

    def texts(self, row: int) -> list[str]:
        return self._captions.of(row)

    def scores(self, row: int) -> Sequence[float]:
        return self._captions.scores(row)

    def sizes(self) -> Iterator[tuple[int, int]]:
        """(height, width) of each row from the files' headers, (0, 0) where there is no readable one."""
        return (header_size(self._path(row)) for row in range(self.count))
