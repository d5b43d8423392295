"""Webdatasets on this machine: .tar files, read in place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanactl.data.caption_columns import CaptionColumns
from sanactl.data.captions import DEFAULT_COLUMNS, CaptionChoice, parse_captions
from sanactl.data.listing import identity_of_files
from sanactl.data.scored_captions import ScoreRule
from sanactl.data.tables import described, header_size
from sanactl.data.tar import Piece, TarIndex, index_tar
from sanactl.errors import InputError
from sanactl.files.images import read_image

__all__ = ["Shards", "TarStream", "TarTable"]

# Shards in which a stream's captions are looked for before it begins.
_LOOKED_AT = 8


class Shards:
    """`.tar` files and how their examples are read.

    Args:
        name: the name that the user gave, for errors.
        root: a folder that contains all shards.
        names: the shards' paths, relative to `root`.
        read: reads a shard's headers and captions, with further endings of members that hold text.
        what: the kind of data, for people.
        beside: further files that captions come from, relative to `root`.
        default: columns to look for captions in.
        left_out: lines about what is not used.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        names: Sequence[str],
        *,
        read: Callable[[Path, Collection[str]], TarIndex] = index_tar,
        what: str = "a webdataset",
        beside: Sequence[str] = (),
        default: tuple[str, ...] = DEFAULT_COLUMNS,
        left_out: Sequence[str] = (),
    ) -> None:
        self.name, self.root, self.names, self.read = name, root, tuple(names), read
        self.what, self.beside, self.default, self.left_out = what, tuple(beside), default, list(left_out)

    @property
    def paths(self) -> list[Path]:
        """The files."""
        return [self.root / name for name in self.names]

    def identity(self, *more: str) -> str:
        """A fingerprint of all files, and of whatever else counts."""
        return identity_of_files(self.root, [*self.names, *self.beside], *more)


class TarTable:
    """The examples of .tar files, by number: shard after shard, in the order of their members.

    The constructor reads all headers and captions. An image is read from its shard when it is asked for.

    Args:
        shards: the files.
        captions: the value of `--captions`, or None.
        rule: of the choice among captions by their scores, or None.

    Raises:
        InputError: a shard is damaged, or there are no images or no captions.
    """

    def __init__(self, shards: Shards, captions: str | None = None, rule: ScoreRule | None = None) -> None:
        import pyarrow as pa

        self.name, self._shards = shards.name, shards.paths
        columns, whole = CaptionColumns(captions, self.name, shards.default, rule), TarIndex()
        keys: list[str] = []
        places: list[tuple[int, int, int]] = []
        for number, shard in enumerate(shards.names):
            index = shards.read(self._shards[number], _endings(captions))
            for example in index.examples:
                keys.append(example.key)
                places.append((number, example.image.offset, example.image.size))
                columns.add(example.cells, f"{shard}, {example.key}", example.scores)
            whole.extra += index.extra
            whole.alone += index.alone
            whole.links += index.links
            whole.unknown += index.unknown
        if not keys:
            raise InputError(f"{self.name}: no images in {_tars(len(shards.names))}")
        self._captions = columns.choose()
        self.captions = self._captions.choice
        self._places = np.array(places, dtype=np.int64)  # [rows, 3]: shard, offset, size
        if self._captions.rows is not None:
            self._places = self._places[self._captions.rows]
            keys = [keys[row] for row in self._captions.rows]
        self.count = len(keys)
        self._keys = pa.array([key.encode("utf-8", "surrogateescape") for key in keys], pa.large_binary())
        self.about = described(
            self.count,
            self.name,
            f"{shards.what} of {_tars(len(shards.names))}",
            [*shards.left_out, *_left_out(whole), *self._captions.left_out],
            self._captions.empty,
        )
        self.identity = shards.identity(self.captions.identity, *self._captions.all())

    def _piece(self, row: int) -> Piece:
        shard, offset, size = (int(n) for n in self._places[row])
        return Piece(self._shards[shard], offset, size)

    def image(self, row: int) -> NDArray[np.uint8]:
        piece = self._piece(row)
        key = self._keys[row].as_py().decode("utf-8", "surrogateescape")
        return read_image(piece.read(), name=f"{piece.path}, {key}")

    def texts(self, row: int) -> list[str]:
        return self._captions.of(row)

    def scores(self, row: int) -> Sequence[float]:
        return self._captions.scores(row)

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

    def __init__(self, shards: Shards, captions: str | None = None) -> None:
        self.name, self._shards, self._read = shards.name, shards.paths, shards.read
        self._endings = _endings(captions)
        columns = CaptionColumns(captions, self.name, shards.default)
        for shard in self._shards[:_LOOKED_AT]:
            for example in self._read(shard, self._endings).examples:
                columns.add(example.cells, f"{shard}, {example.key}")
            if columns.found:
                break
        if not columns.rows:
            raise InputError(f"{self.name}: no images in {_tars(len(self._shards[:_LOOKED_AT]))}")
        self.captions: CaptionChoice = columns.choose().choice
        self.about = described(
            None, self.name, f"{shards.what} of {_tars(len(self._shards))}, streamed", shards.left_out
        )
        self.identity = shards.identity()

    def epoch(self, number: int, seed: int | None) -> Iterator[dict[str, Any]]:
        """The rows of one reading; with a seed the shards come in an order of (seed, number)."""
        order = np.arange(len(self._shards))
        if seed is not None:
            order = np.random.default_rng([seed, number]).permutation(order)
        for shard in order:
            path = self._shards[shard]
            for example in self._read(path, self._endings).examples:
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
        (index.unknown, "captions and scores of images that are not in their shard"),
    ]
    return [f"{count:,} {what}" for count, what in lines if count]
