"""The formats that `export --to` can name."""

from __future__ import annotations

from sanactl.errors import UsageError
from sanactl.exporting.formats.base import ExportFormat
from sanactl.exporting.formats.hf_dataset import HfDataset
from sanactl.exporting.formats.imagefolder import ImageFolder
from sanactl.exporting.formats.nvila_json import NvilaJson
from sanactl.exporting.formats.parquet import Parquet
from sanactl.exporting.formats.sana import Sana
from sanactl.exporting.formats.webdataset import Webdataset
from sanactl.files.json_values import brief

__all__ = ["EXPORTS", "open_format"]

EXPORTS: dict[str, ExportFormat] = {
    format.name: format
    for format in (ImageFolder(), Webdataset(), Sana(), Parquet(), HfDataset(), NvilaJson())
}


def open_format(name: str) -> ExportFormat:
    """A format by its name.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in EXPORTS:
        raise UsageError(f"no format {brief(name)}", hint=f"there are: {', '.join(EXPORTS)}")
    return EXPORTS[name]
