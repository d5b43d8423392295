"""Listing the images and captions of a .tar file from its headers, without reading the images."""

from __future__ import annotations

import io
import json
import os
import posixpath
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from sanactl.data.scored_captions import Score
from sanactl.errors import InputError
from sanactl.files.images import MAX_BYTES, SUFFIXES
from sanactl.files.regular import open_regular

__all__ = ["TEXTS", "Piece", "TarExample", "TarIndex", "index_tar"]

BLOCK = 512
MAX_TEXT = 2**20  # bytes of a caption or a .json
MAX_HEADER = 2**20  # bytes of a member's header; a path has at most 4,096
MAX_GAP = 64 * 2**20  # zeros between two archives that were joined to one file
IMAGES = frozenset(suffix[1:] for suffix in SUFFIXES)
# Endings of members that may hold captions.
TEXTS = ("txt", "text", "caption", "prompt", "json")
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True)
class Piece:
    """A part of a file: a member of a .tar."""

    path: Path
    offset: int
    size: int

    def read(self) -> io.BytesIO:
        """Its bytes.

        Raises:
            InputError: they are too many for an image, or the file is gone or shorter than it was.
        """
        if self.size > MAX_BYTES:
            raise InputError(f"{self.path}: a member larger than {MAX_BYTES >> 20} MiB")
        with open_regular(self.path) as stream:
            stream.seek(self.offset)
            data = stream.read(self.size)
        if len(data) < self.size:
            raise InputError(f"{self.path}: is shorter than it was when the command began")
        return io.BytesIO(data)

    def open(self) -> IO[bytes]:
        """Its bytes as a file of its own, of which no more is read than is asked for.

        Raises:
            InputError: the file is gone.
        """
        return io.BufferedReader(_Window(open_regular(self.path), self.offset, self.size))


class _Window(io.RawIOBase):
    """`size` bytes of a stream from `start` on, as a file."""

    def __init__(self, stream: IO[bytes], start: int, size: int) -> None:
        self._stream, self._start, self._size, self._at = stream, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        self._stream.seek(self._start + self._at)
        data = self._stream.read(count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


@dataclass(frozen=True)
class TarExample:
    """An image of a .tar with what stands beside it: `cells` by ending, a .json as its object.

    Attributes:
        scores: of its captions, from files beside the .tar; None: those among the cells.
    """

    key: str
    image: Piece
    cells: dict[str, Any]
    scores: tuple[Score, ...] | None = None


@dataclass
class TarIndex:
    """The examples of a .tar in the order of their first members, and how much is not used.

    Attributes:
        extra: images beside an example's first.
        alone: captions without an image.
        links: members that are links or devices.
        unknown: captions and scores in files beside the .tar, of images that are not in it.
    """

    examples: list[TarExample] = field(default_factory=list)
    extra: int = 0
    alone: int = 0
    links: int = 0
    unknown: int = 0


def index_tar(path: Path, also: Collection[str] = ()) -> TarIndex:
    """Reads a .tar's headers and captions.

    An example's name is that of its files up to the first dot: `a/001.jpg`, `a/001.txt`, `a/001.long.txt` are one with
    the columns `txt` and `long.txt`. Where an image and a caption share a longer name, that is the example's:
    `IMG_1.5.png` and `IMG_1.5.txt`. So is the longer name of an image whose short one has neither image nor caption.
    Endings may be in capitals, the members in any order. What comes twice under one name begins another example.

    Args:
        also: endings besides `TEXTS` of members that hold text.

    Raises:
        InputError: it is no .tar, compressed, damaged or cut short.
    """
    texts = frozenset(TEXTS) | {ending.lower() for ending in also}
    index = TarIndex()
    groups: list[tuple[str, dict[str, Any]]] = []
    current: dict[str, dict[str, Any]] = {}
    with open_regular(path) as stream:
        for member in _members(stream, path):
            name = posixpath.normpath(member.name)
            if any(part.startswith(".") or part == "__MACOSX" for part in name.split("/")):
                continue
            if not member.isfile() or member.issparse():
                index.links += not member.isdir()
                continue
            folder, base = posixpath.split(name)
            stem, dot, ending = base.partition(".")
            if not dot:
                continue
            key, ending = posixpath.join(folder, stem), ending.lower()
            if ending in current.get(key, (ending,)):
                current[key] = {}
                groups.append((key, current[key]))
            place = Piece(path, member.offset_data, member.size)
            last = ending.rpartition(".")[2]
            current[key][ending] = (
                place if last not in texts else _text(stream, place, last, f"{path}, {name}")
            )
    for key, files in groups:
        _add_examples(index, key, files)
    return index


def _text(stream: IO[bytes], place: Piece, ending: str, where: str) -> Any:
    """A member's text, a .json as its object; an `InputError` where it cannot be read, which counts if it is used."""
    if place.size > MAX_TEXT:
        return InputError(f"{where}: text of more than {MAX_TEXT >> 20} MiB")
    stream.seek(place.offset)
    data = stream.read(place.size)
    try:
        text = data.decode("utf-8-sig")
        return json.loads(text) if ending == "json" else text
    except UnicodeDecodeError as error:
        return InputError(
            f"{where}: not UTF-8 text (byte 0x{data[error.start]:02x})", hint="write it as UTF-8"
        )
    except (ValueError, RecursionError) as error:
        return InputError(f"{where}: not JSON ({error})")


def _add_examples(index: TarIndex, key: str, files: dict[str, Any]) -> None:
    """The examples of one short name."""
    longer: dict[str, dict[str, Any]] = {}
    for ending, content in files.items():
        stem, _, last = ending.rpartition(".")
        longer.setdefault(stem, {})[last] = content
    own = [
        s
        for s, part in longer.items()
        if s and any(map(_is_image, part.items())) and any(map(_is_text, part.items()))
    ]
    for stem in own:
        _add_example(index, f"{key}.{stem}", longer[stem])
    rest = {e: content for e, content in files.items() if e.rpartition(".")[0] not in own}
    plain = longer.get("", {})
    if any(map(_is_image, plain.items())) or any(map(_is_text, plain.items())):
        _add_example(index, key, rest)
        return
    images = [e for e in rest if _is_image((e, rest[e]))]
    for ending in images:
        _add_example(index, f"{key}.{ending.rpartition('.')[0]}", {ending: rest[ending]})
    if not images:
        index.alone += sum(_is_text(file) for file in rest.items())


def _add_example(index: TarIndex, key: str, files: dict[str, Any]) -> None:
    """One example: the first image with the shortest ending, and what is text."""
    images = sorted((e for e in files if _is_image((e, files[e]))), key=lambda e: e.count("."))
    cells = {e: content for e, content in files.items() if _is_text((e, content))}
    if not images:
        index.alone += len(cells)
        return
    index.extra += len(images) - 1
    index.examples.append(TarExample(key, files[images[0]], cells))


def _is_image(file: tuple[str, Any]) -> bool:
    return file[0].rpartition(".")[2] in IMAGES and isinstance(file[1], Piece)


def _is_text(file: tuple[str, Any]) -> bool:
    return not isinstance(file[1], Piece)


class _Headers(io.RawIOBase):
    """A file for tarfile to read headers from, which refuses headers of an impossible size."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _members(stream: IO[bytes], path: Path) -> Iterator[tarfile.TarInfo]:
    """All members of a file of one or several joined archives.

    tarfile ends without an error where a header is damaged, and at the first of joined archives.
    """
    size = os.fstat(stream.fileno()).st_size
    head = stream.read(8)
    packed = next((how for magic, how in _PACKED.items() if head.startswith(magic)), None)
    if packed:
        raise InputError(
            f"{path}: is compressed ({packed})", hint="unpack it: images inside do not get smaller by it"
        )
    start: int | None = 0
    while start is not None:
        stream.seek(start)
        try:
            tar = tarfile.open(
                fileobj=_Headers(stream), mode="r:", encoding="utf-8", errors="surrogateescape"
            )
            while (member := tar.next()) is not None:
                if member.offset_data + member.size > size and not member.issparse():
                    raise tarfile.ReadError(f"{member.name!r} is cut short")
                yield member
                vars(tar)["members"].clear()  # it keeps them all
        except (tarfile.TarError, ValueError, OverflowError, OSError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{path}: not a whole .tar file ({error or type(error).__name__})",
                hint="copy or make it again",
            ) from None
        start = _next_archive(stream, path, tar.offset, size)


def _next_archive(stream: IO[bytes], path: Path, offset: int, size: int) -> int | None:
    """Where another archive begins behind one that ends at `offset`; None where nothing does.

    Raises:
        InputError: there is no end of an archive.
    """
    stream.seek(offset)
    if stream.read(BLOCK).strip(b"\0"):
        raise InputError(
            f"{path}: damaged at byte {offset:,}: no header of a member", hint="copy or make it again"
        )
    offset += BLOCK
    stop = min(size, offset + MAX_GAP)
    while offset < stop:
        block = stream.read(BLOCK)
        if block.strip(b"\0"):
            return offset
        offset += BLOCK
    return None
