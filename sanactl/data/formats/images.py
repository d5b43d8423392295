"""Image files with captions beside them: in a metadata file, in a text file for each, or in a table that names them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sanactl.data.formats.base import DataFormat
from sanactl.data.image_files import ImageFiles, Listing
from sanactl.data.image_rows import SIDE_FILES, metadata_rows, side_file_rows, table_rows
from sanactl.data.listing import suffix_of
from sanactl.data.metadata import IMAGE_PATHS, has_file_names, has_kinds, text_columns
from sanactl.data.references import Reference
from sanactl.data.settings import DataSettings
from sanactl.data.tables import Examples
from sanactl.errors import InputError

__all__ = ["ImageTable", "ImagesWithMetadata", "ImagesWithTexts", "names_images"]

_SHARDS = (".tar", ".parquet", ".arrow")


class ImagesWithMetadata(DataFormat):
    """A folder of images with `metadata.jsonl`, `.csv` or `.parquet` in it or below, or such a file by itself."""

    name = "images with metadata"
    scored = True
    certain = True

    def recognises(self, reference: Reference) -> str | None:
        if not reference.metadata:
            return None
        first = reference.metadata[0]
        if reference.kind == "folder":
            return first if reference.images else None
        is_table = suffix_of(first) == ".parquet" and not has_file_names(reference.root / first)
        return None if is_table else first

    def open(self, reference: Reference, settings: DataSettings) -> Examples:
        files = reference.metadata
        told = files[0] if len(files) == 1 else f"{len(files)} metadata files"
        others = [found for suffix in _SHARDS if (found := reference.ending(suffix))]
        listing = Listing(
            reference.name,
            reference.root,
            files,
            f"images with {told}",
            images=reference.images,
            lacking=f"have no line in {told}",
            left_out=tuple(_listed(found) for found in others),
        )
        rows = metadata_rows(reference.root, files, reference.images)
        return ImageFiles(listing, rows, settings.captions, settings.max_bad, settings.rule)


class ImagesWithTexts(DataFormat):
    """A folder of images with a `.txt` or `.caption` file of the same name beside each, as kohya's scripts read it."""

    name = "images with text files"
    scored = True

    def recognises(self, reference: Reference) -> str | None:
        return next(iter(reference.images), None) if reference.kind == "folder" else None

    def open(self, reference: Reference, settings: DataSettings) -> Examples:
        stems = {os.path.splitext(image)[0] for image in reference.images}
        texts = tuple(f for f in reference.ending(*SIDE_FILES) if os.path.splitext(f)[0] in stems)
        rows = list(side_file_rows(reference.root, reference.images, texts))
        if not rows:
            raise _without_captions(reference)
        listing = Listing(
            reference.name,
            reference.root,
            texts,
            "images with text files",
            images=reference.images,
            lacking=f"have no {' or '.join(SIDE_FILES)} file",
        )
        return ImageFiles(listing, rows, settings.captions, settings.max_bad, settings.rule)


class ImageTable(DataFormat):
    """A `.csv`, `.tsv`, `.jsonl` or `.parquet` file with a column of image paths and one of captions."""

    name = "a table of image paths"
    scored = True
    suffixes = (".csv", ".tsv", ".jsonl", ".parquet")

    def recognises(self, reference: Reference) -> str | None:
        # Other tables in a folder may be anything; Parquet files are data.
        suffixes = (".parquet",) if reference.kind == "folder" else self.suffixes
        files = reference.ending(*suffixes)
        return files[0] if files and names_images(reference.root / files[0]) else None

    def open(self, reference: Reference, settings: DataSettings) -> Examples:
        files = reference.files if reference.kind == "files" else reference.ending(".parquet")
        number = f"{len(files):,} tables" if len(files) > 1 else "a table"
        listing = Listing(reference.name, reference.root, files, f"{number} of image paths")
        rows = table_rows(reference.root, files)
        return ImageFiles(listing, rows, settings.captions, settings.max_bad, settings.rule)


def names_images(path: Path) -> bool:
    """Whether a table is one of image paths, and not of records or of images themselves."""
    suffix = suffix_of(path.name)
    if suffix == ".parquet":
        return bool(set(IMAGE_PATHS) & text_columns(path))
    if suffix == ".jsonl":
        return not has_kinds(path)
    return True


def _without_captions(reference: Reference) -> InputError:
    table = next(iter(reference.ending(".csv", ".tsv", ".jsonl")), None)
    hint = "put a metadata.jsonl beside the images, with their file_name and text on each line, or a .txt beside each"
    if table is not None:
        hint += f"; a table that names the images is given as --data {os.path.join(reference.name, table)}"
    return InputError(f"{reference.name}: has images but no captions", hint=hint)


def _listed(files: Sequence[str]) -> str:
    more = f" and {len(files) - 1:,} more {suffix_of(files[0])} files" if len(files) > 1 else ""
    return f"{files[0]}{more}, since metadata tell of images"
