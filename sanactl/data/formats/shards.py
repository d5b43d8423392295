"""Formats of files with many examples each, and of data that the `datasets` library reads."""

from __future__ import annotations

import re
from typing import Any

from sanactl.data.dataset_table import DatasetTable
from sanactl.data.formats.base import DataFormat, check_scored
from sanactl.data.formats.images import names_images
from sanactl.data.library import load_addresses, load_files, load_hub, load_saved
from sanactl.data.listing import identity_of_files, list_folder
from sanactl.data.metadata import has_file_names
from sanactl.data.references import Reference
from sanactl.data.settings import DataSettings
from sanactl.data.streams import DatasetStream, StreamTable
from sanactl.data.tables import Examples
from sanactl.data.webdataset import Shards, TarStream, TarTable
from sanactl.errors import InputError

__all__ = [
    "Addresses", "ArrowFiles", "HubDataset", "ParquetFiles", "SavedDataset", "Webdataset", "tar_examples",
]  # fmt: skip

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


class Webdataset(DataFormat):
    """`.tar` files on this machine."""

    name = "a webdataset"
    scored = True
    suffixes = (".tar",)

    def recognises(self, reference: Reference) -> str | None:
        return next(iter(reference.ending(".tar")), None)

    def open(self, reference: Reference, settings: DataSettings) -> Examples:
        return tar_examples(Shards(reference.name, reference.root, reference.ending(".tar")), settings)


def tar_examples(shards: Shards, settings: DataSettings) -> Examples:
    """`.tar` files by number, or as a stream.

    Raises:
        UsageError: a stream with a choice by scores.
    """
    if settings.streaming:
        check_scored(settings, False, "a stream")
        return StreamTable(TarStream(shards, settings.captions), seed=_stream_seed(settings))
    return TarTable(shards, settings.captions, settings.rule)


class _LibraryFiles(DataFormat):
    """Files of a kind that `datasets` knows by name."""

    kind: str

    def files(self, reference: Reference) -> tuple[str, ...]:
        return reference.ending(*self.suffixes)

    def recognises(self, reference: Reference) -> str | None:
        return next(iter(self.files(reference)), None)

    def open(self, reference: Reference, settings: DataSettings) -> Examples:
        files = self.files(reference)
        identity = identity_of_files(reference.root, files)
        data = load_files(
            self.kind, reference.name, reference.root, files, identity, streaming=settings.streaming
        )
        number = f"{len(files):,} {self.kind.capitalize()} file{'s' if len(files) != 1 else ''}"
        return _examples(data, reference, settings, number, identity)


class ParquetFiles(_LibraryFiles):
    """Parquet files with the images in them."""

    name = "a table of images"
    kind = "parquet"
    suffixes = (".parquet",)

    def files(self, reference: Reference) -> tuple[str, ...]:
        files = super().files(reference)
        named_as_metadata = [f for f in reference.metadata if f.endswith(".parquet")]
        if not files and named_as_metadata and not has_file_names(reference.root / named_as_metadata[0]):
            return tuple(named_as_metadata)
        return files if files and not names_images(reference.root / files[0]) else ()


class ArrowFiles(_LibraryFiles):
    """Arrow files with the images in them."""

    name = "a table of images"
    kind = "arrow"
    suffixes = (".arrow",)


class SavedDataset(DataFormat):
    """A folder that `Dataset.save_to_disk` wrote."""

    name = "a saved dataset"
    certain = True

    def recognises(self, reference: Reference) -> str | None:
        root = reference.root
        if reference.kind != "folder":
            return None
        if (root / "dataset_info.json").is_file() and (root / "state.json").is_file():
            return "state.json"
        if (root / "dataset_dict.json").is_file():
            folders = sorted(f for f in root.iterdir() if (f / "state.json").is_file())
            first = folders[0] if folders else root / "train"
            split = next((f for f in folders if f.name == "train"), first)
            raise InputError(
                f"{reference.name}: a saved dataset of several splits", hint=f"name one: {split}"
            )
        return None

    def open(self, reference: Reference, settings: DataSettings) -> Examples:
        identity = identity_of_files(reference.root, list_folder(reference.root))
        data = load_saved(reference.name, reference.root, streaming=settings.streaming)
        return _examples(data, reference, settings, "a saved dataset", identity)


class Addresses(DataFormat):
    """`.tar` files at addresses: `https://.../{000..010}.tar`, `hf://...`."""

    name = "a webdataset at addresses"

    def recognises(self, reference: Reference) -> str | None:
        is_tars = reference.kind == "addresses" and reference.suffix == ".tar"
        return reference.named[0] if is_tars else None

    def open(self, reference: Reference, settings: DataSettings) -> Examples:
        data = load_addresses(reference.name, reference.named, streaming=settings.streaming)
        identity = " ".join([*reference.named, str(getattr(data, "_fingerprint", ""))])
        what = f"a webdataset of {len(reference.named):,} addresses"
        return _examples(data, reference, settings, what, identity)


class HubDataset(DataFormat):
    """A dataset on the Hub, by its id: the `train` split."""

    name = "a dataset on the Hub"

    def recognises(self, reference: Reference) -> str | None:
        is_id = reference.kind == "name" and HUB_ID.fullmatch(reference.name)
        return reference.name if is_id else None

    def open(self, reference: Reference, settings: DataSettings) -> Examples:
        data, identity = load_hub(reference.name, streaming=settings.streaming)
        return _examples(data, reference, settings, "a dataset of the Hub, its train split", identity)


def _examples(data: Any, reference: Reference, settings: DataSettings, what: str, identity: str) -> Examples:
    """A dataset of the library, by number or as a stream."""
    if settings.streaming:
        stream = DatasetStream(data, reference.name, what, identity, settings.captions)
        return StreamTable(stream, seed=_stream_seed(settings))
    return DatasetTable(data, reference.name, what, identity, settings.captions)


def _stream_seed(settings: DataSettings) -> int | None:
    return None if settings.once else settings.seed
