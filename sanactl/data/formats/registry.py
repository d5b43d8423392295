"""The formats that `--data` can name, and finding the format of a name."""

from __future__ import annotations

import glob
import os

from sanactl.data.formats.base import DataFormat
from sanactl.data.formats.images import ImagesWithMetadata, ImagesWithTexts, ImageTable
from sanactl.data.formats.made import BuiltinShapes, EncodedShards, GenevalFolder, ImageRecords
from sanactl.data.formats.sana import SanaShards
from sanactl.data.formats.shards import (
    Addresses,
    ArrowFiles,
    HubDataset,
    ParquetFiles,
    SavedDataset,
    Webdataset,
)
from sanactl.data.listing import suffix_of
from sanactl.data.references import HINT, Reference, find_reference
from sanactl.errors import InputError
from sanactl.files.images import SUFFIXES

__all__ = ["FORMATS", "find_format"]

# In the order in which they are asked. A format that is `certain` decides; of the others only one may recognise a name.
FORMATS: list[DataFormat] = [
    BuiltinShapes(),
    EncodedShards(),
    SanaShards(),
    SavedDataset(),
    GenevalFolder(),
    ImagesWithMetadata(),
    ImagesWithTexts(),
    Webdataset(),
    ImageTable(),
    ParquetFiles(),
    ArrowFiles(),
    ImageRecords(),
    Addresses(),
    HubDataset(),
]
_PACKED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def find_format(name: str) -> tuple[DataFormat, Reference]:
    """The format of what `--data` names, by what is there. Nothing is guessed from words such as train or test.

    Raises:
        InputError: it is of no format, or could be of two.
    """
    reference = find_reference(name)
    if reference.kind == "name" and (_is_pattern(name) or reference.suffix in _suffixes()):
        raise InputError(f"{name}: no such file", hint=HINT)
    seen: list[tuple[DataFormat, str]] = []
    for format in FORMATS:
        sign = format.recognises(reference)
        if sign is not None and format.certain:
            return format, reference
        if sign is not None:
            seen.append((format, sign))
    if not seen:
        raise _of_none(reference)
    if len(seen) > 1:
        signs = [sign for _, sign in seen]
        other = next(suffix_of(sign) for sign in signs if suffix_of(sign) not in SUFFIXES)
        raise InputError(
            f"{name}: holds {' and '.join(signs)}: which kind is the data?",
            hint=f"name the files, as in {os.path.join(name, '*' + other)}, or take the others away",
        )
    return seen[0][0], reference


def _suffixes() -> set[str]:
    return {suffix for format in FORMATS for suffix in format.suffixes}


def _is_pattern(name: str) -> bool:
    return glob.has_magic(name) or "{" in name


def _of_none(reference: Reference) -> InputError:
    """What to say of a name that no format recognises."""
    name = reference.name
    packed = next((f for f in reference.files if suffix_of(f) in _PACKED), None)
    if reference.kind == "folder":
        if reference.metadata:
            return InputError(
                f"{name}: {reference.metadata[0]} names images, but none is there",
                hint="put the images beside it",
            )
        if packed:
            return InputError(f"{name}: {packed} is compressed", hint="unpack it first")
        empty = "no images, .tar or .parquet files in it" if reference.files else "is empty"
        return InputError(f"{name}: {empty}", hint=HINT)
    if reference.kind == "addresses":
        return InputError(f"{name}: is no address of .tar files", hint=HINT)
    if reference.kind == "name":
        return InputError(f"{name}: there is no such folder", hint=HINT)
    if packed:
        return InputError(f"{name}: is compressed", hint="unpack it first")
    return InputError(f"{name}: is no folder of images", hint=HINT)
