"""SANA's own data format: `.tar` files, their list `wids-meta.json`, and captions and scores in files beside them."""

from __future__ import annotations

import os

from sanactl.data.captions import DEFAULT_COLUMNS
from sanactl.data.formats.base import DataFormat
from sanactl.data.formats.shards import tar_examples
from sanactl.data.references import Reference
from sanactl.data.settings import DataSettings
from sanactl.data.side_files import PROMPT, SideFiles
from sanactl.data.tables import Examples
from sanactl.data.webdataset import Shards
from sanactl.data.wids import INDEX, read_shard_list

__all__ = ["SanaShards"]


class SanaShards(DataFormat):
    """A folder with a `wids-meta.json`, or such a file by itself."""

    name = "SANA's data format"
    suffixes = (".json",)
    scored = True
    certain = True

    def recognises(self, reference: Reference) -> str | None:
        if reference.kind == "folder":
            return INDEX if os.path.lexists(reference.root / INDEX) else None
        return INDEX if reference.kind == "files" and reference.named == (INDEX,) else None

    def open(self, reference: Reference, settings: DataSettings) -> Examples:
        root = reference.root
        listed = read_shard_list(root / INDEX)
        sides = SideFiles(root, listed.names, listed.samples)
        there = reference.ending(".tar") if reference.kind == "folder" else ()
        unlisted = len(set(there) - set(listed.names))
        shards = Shards(
            reference.name,
            root,
            listed.names,
            read=sides.read,
            what="SANA's data format, a webdataset",
            beside=[INDEX, *sides.names],
            default=(PROMPT, *(column for column in DEFAULT_COLUMNS if column != PROMPT)),
            left_out=[f"{unlisted:,} .tar files that {INDEX} does not list"] if unlisted else [],
        )
        return tar_examples(shards, settings)
