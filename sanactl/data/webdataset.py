"""Webdatasets on this machine: .tar files, read in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanactl.data.caption_columns import CaptionColumns
from sanactl.data.captions import CaptionChoice, parse_captions
from sanactl.data.listing import identity_of_files
from sanactl.data.tables import described, header_size
from sanactl.data.tar import Piece, TarIndex, index_tar
from sanactl.errors import InputError
from sanactl.files.images import read_image

__all__ = ["TarStream", "TarTable"]

# Shards in which a stream's captions are looked for before it begins.
_LOOKED_AT = 8


class TarTable:
    """The examples of .tar files, by number: shard after shard, in the order of their members.

    The constructor reads all headers and captions. An image is read from its shard when it is asked for.

    Args:
        name: the name that the user gave, for errors.
        root: a folder that contains all shards.
        shards: the shards' paths, relative to `root`.
        captions: the value of `--captions`, or None.

    Raises:
        InputError: a shard is damaged, or there are no images or no captions.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        shards: Sequence[str],
        captions: str | None = None,
    ) -> None:
        import pyarrow as pa

        self.name, self._shards = name, [root / shard for shard in shards]
        columns, whole = CaptionColumns(captions, name), TarIndex()
        keys: list[str] = []
        places: list[tuple[int, int, int]] = []
        for number, shard in enumerate(self._shards):
            index = index_tar(shard, _endings(captions))
            for example in index.examples:
                keys.append(example.key)
                places.append((number, example.image.offset, example.image.size))
                columns.add(example.cells, f"{shard}, {example.key}")
            whole.extra += index.extra
            whole.alone += index.alone
            whole.links += index.links
        self.count = len(keys)
        if not self.count:
            raise InputError(f"{name}: no images in {_tars(len(shards))}")
        self._captions = columns.choose()
        self.captions = self._captions.choice
        self._keys = pa.array([key.encode("utf-8", "surrogateescape") for key in keys], pa.large_binary())
        self._places = np.array(places, dtype=np.int64)  # [rows, 3]: shard, offset, size
        self.about = described(
            self.count, name, f"a webdataset of {_tars(len(shards))}", _left_out(whole), self._captions.empty
        )
        self.identity = identity_of_files(root, shards, str(self.captions), *self._captions.all())

    def _piece(self, row: int) -> Piece:
        shard, offset, size = (int(n) for n in self._places[row])
        return Piece(self._shards[shard], offset, size)

    def image(self, row: int) -> NDArray[np.uint8]:
        piece = self._piece(row)
        key = self._keys[row].as_py().decode("utf-8", "surrogateescape")
        return read_image(piece.read(), name=f"{piece.path}, {key}")

    def texts(self, row: int) -> list[str]:
        return self._captions.of(row)

    def sizes(self) -> Iterator[tuple[int, int]]:
        """(height, width) of each row from the images' headers, (0, 0) where there is no readable one."""
        for row in range(self.count):
            with self._piece(row).open() as stream:
                yield header_size(stream)


class TarStream:
    """The examples of .tar files as a stream: a shard's headers are read when it is reached.

    Attributes:
        captions: the columns to take captions from, found in the first shards.

    Raises:
        InputError: none of the first shards has images with captions, or one is damaged.
    """

    images = ("image",)

    def __init__(self, name: str, root: Path, shards: Sequence[str], captions: str | None = None) -> None:
        self.name, self._shards, self._endings = name, [root / shard for shard in shards], _endings(captions)
        columns = CaptionColumns(captions, name)
        for shard in self._shards[:_LOOKED_AT]:
            for example in index_tar(shard, self._endings).examples:
                columns.add(example.cells, f"{shard}, {example.key}")
            if columns.found:
                break
        if not columns.rows:
            raise InputError(f"{name}: no images in {_tars(len(self._shards[:_LOOKED_AT]))}")
        self.captions: CaptionChoice = columns.choose().choice
        self.about = described(None, name, f"a webdataset of {_tars(len(shards))}, streamed", [])
        self.identity = identity_of_files(root, shards)

    def epoch(self, number: int, seed: int | None) -> Iterator[dict[str, Any]]:
        """The rows of one reading; with a seed the shards come in an order of (seed, number)."""
        order = np.arange(len(self._shards))
        if seed is not None:
            order = np.random.default_rng([seed, number]).permutation(order)
        for shard in order:
            path = self._shards[shard]
            for example in index_tar(path, self._endings).examples:
                yield {"__key__": example.key, "__url__": str(path), "image": example.image, **example.cells}


def _endings(captions: str | None) -> set[str]:
    """The endings of members that columns which were asked for may be in."""
    columns = () if captions is None else parse_captions(captions).columns
    return {part for column in columns for part in column.split(".")}


def _tars(count: int) -> str:
    return f"{count:,} .tar file{'s' if count != 1 else ''}"


def _left_out(index: TarIndex) -> list[str]:
    lines = [
        (index.extra, "images beside the first of their example"),
        (index.alone, "captions without an image"),
        (index.links, "members that are links or devices"),
    ]
    return [f"{count:,} {what}" for count, what in lines if count]
