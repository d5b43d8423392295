"""From what `--data` names to examples: one reader a layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanactl.data.dataset_table import DatasetTable
from sanactl.data.folder import FolderTable
from sanactl.data.library import load_addresses, load_files, load_hub, load_saved
from sanactl.data.listing import identity_of_files, list_folder
from sanactl.data.references import Reference, find_reference
from sanactl.data.streams import DatasetStream, StreamTable
from sanactl.data.tables import Examples, RecordTable, ShapesTable
from sanactl.data.webdataset import TarStream, TarTable
from sanactl.errors import InputError

__all__ = ["open_examples"]


@dataclass(frozen=True)
class _Reading:
    """How data are to be read: `seed` shuffles a stream, None reads it once."""

    captions: str | None
    streaming: bool
    seed: int | None
    max_bad: int


def open_examples(
    reference: str | None,
    *,
    seed: int,
    side: int,
    records: Sequence[dict[str, Any]] | None = None,
    captions: str | None = None,
    streaming: bool = False,
    shuffled: bool = False,
    max_bad: int = 0,
) -> Examples:
    """The images and captions that `--data` names, as they are stored.

    Args:
        reference, records, captions, streaming: as `open_training_data`'s.
        seed: of the built-in world, and of a shuffled stream.
        side: of the built-in world's pictures, in pixels.
        shuffled: whether a stream is to be shuffled and endless.
        max_bad: how many images that metadata name may be missing.

    Raises:
        InputError: it is no data, has no images with captions, or cannot be read.
    """
    if records is not None:
        return RecordTable(records, captions)
    if reference is None or reference == "builtin:shapes":
        if captions is not None:
            raise InputError(
                f"the built-in world has one caption a picture: --captions {captions} is for data"
            )
        return ShapesTable(seed, side)
    found = find_reference(reference)
    reading = _Reading(captions, streaming, seed if shuffled else None, max_bad)
    return _READERS[found.layout](found, reading)


def _images(found: Reference, reading: _Reading) -> Examples:
    return FolderTable(
        found.name,
        found.root,
        found.files,
        found.images,
        reading.captions,
        left_out=found.left_out,
        max_bad=reading.max_bad,
    )


def _tars(found: Reference, reading: _Reading) -> Examples:
    if reading.streaming:
        stream = TarStream(found.name, found.root, found.files, reading.captions)
        return StreamTable(stream, seed=reading.seed)
    return TarTable(found.name, found.root, found.files, reading.captions, left_out=found.left_out)


def _tables(found: Reference, reading: _Reading) -> Examples:
    identity = identity_of_files(found.root, found.files)
    data = load_files(
        found.layout, found.name, found.root, found.files, identity, streaming=reading.streaming
    )
    number = f"{len(found.files):,} {found.layout.capitalize()} file{'s' if len(found.files) != 1 else ''}"
    return _library(data, found, reading, number, identity)


def _saved(found: Reference, reading: _Reading) -> Examples:
    identity = identity_of_files(found.root, list_folder(found.root))
    data = load_saved(found.name, found.root, streaming=reading.streaming)
    return _library(data, found, reading, "a saved dataset", identity)


def _hub(found: Reference, reading: _Reading) -> Examples:
    data, identity = load_hub(found.name, streaming=reading.streaming)
    return _library(data, found, reading, "a dataset of the Hub, its train split", identity)


def _addresses(found: Reference, reading: _Reading) -> Examples:
    data = load_addresses(found.name, found.files, streaming=reading.streaming)
    identity = " ".join([*found.files, str(getattr(data, "_fingerprint", ""))])
    return _library(data, found, reading, f"a webdataset of {len(found.files):,} addresses", identity)


def _library(data: Any, found: Reference, reading: _Reading, what: str, identity: str) -> Examples:
    if reading.streaming:
        stream = DatasetStream(data, found.name, what, identity, reading.captions)
        return StreamTable(stream, seed=reading.seed)
    return DatasetTable(data, found.name, what, identity, reading.captions, found.left_out)


def _records(found: Reference, reading: _Reading) -> Examples:
    from sanactl.records.records import load_records

    records = load_records(Path(found.name), kinds=("image",))
    return RecordTable(records, reading.captions, origin=found.name)


def _geneval(found: Reference, reading: _Reading) -> Examples:
    from sanactl.records.geneval_folder import read_geneval_folder

    return RecordTable(list(read_geneval_folder(found.root)), reading.captions, origin=found.name)


# A new layout is a reader here, and the rule that finds it in `references`.
_READERS: dict[str, Callable[[Reference, _Reading], Examples]] = {
    "images": _images,
    "tars": _tars,
    "parquet": _tables,
    "arrow": _tables,
    "saved": _saved,
    "geneval": _geneval,
    "records": _records,
    "hub": _hub,
    "addresses": _addresses,
}
