"""`sanactl.export`: image records become a dataset."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sanactl.api.inputs import PathLike, Records, as_progress, as_records, as_target
from sanactl.files.progress import Progress

__all__ = ["export"]


def export(
    records: Records,
    *,
    to: str = "imagefolder",
    shard_size: str = "1GB",
    text_field: Sequence[str] | None = None,
    label_field: str | None = None,
    max_bad: int = 0,
    link: bool = False,
    output: PathLike | None = None,
    force: bool = False,
    progress: bool | Progress = False,
) -> dict[str, Any]:
    """Writes images with their captions and fields as a dataset, in shards, with a dataset card.

    A call that was stopped goes on where it was when it is made again, and gives the same bytes.

    Args:
        records: image records, a JSONL file of them, or a folder of samples.
        to: the format: "imagefolder", "webdataset", "sana", "parquet", "hf-dataset" or "nvila-json".
        shard_size: the largest size of a shard ("1GB"), or its number of images ("1000").
        text_field: the field that becomes the text, and fields with further captions; None is `prompt` alone.
        label_field: the field with yes or no, for "nvila-json"; None is `correct`.
        max_bad: how many records may be left out because an image cannot be read or a field is missing.
        link: make hard links to the images in place of copies, for "imagefolder" and "nvila-json".
        output: the folder; None for one in the current folder, named after the records and the format.
        force: replace an earlier export of other records.
        progress: True for a bar of the images.

    Returns:
        {"path", "to", "images", "shards", "bytes" (of the image files), "skipped" (records left out), "columns" (names
        to types), "key" (a digest of records and settings), "made" (False if it was there already)}.

    Raises:
        UsageError: no such format, a setting that it does not have, or no size.
        InputError: no images; one too many cannot be used; or another run writes this folder.
        OutputExistsError: `output` holds something else, or another export and `force` was not given.

    Source: section 3.3 and appendix B, for the sets that the paper trains on; docs/export.md for the formats.
    """
    from sanactl.exporting.run import Export, target_name
    from sanactl.exporting.settings import export_settings
    from sanactl.records.journal import Journal

    settings = export_settings(
        to,
        shard_size=shard_size,
        text_field=text_field,
        label_field=label_field,
        max_bad=max_bad,
        link=link,
    )
    source = os.fspath(records) if isinstance(records, str | os.PathLike) else None
    target = as_target(output, target_name(source, to))
    with Export(Path(target), settings, force=force) as dataset:
        return dataset.write(
            as_records(records, "image"), source=source, journal=Journal(), progress=as_progress(progress)
        )
