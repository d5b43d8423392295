"""Opening the data that `--data` names, as they are stored or in the order of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sanactl.data.formats.base import check_scored
from sanactl.data.formats.made import BUILTIN
from sanactl.data.formats.registry import find_format
from sanactl.data.settings import DataSettings
from sanactl.data.sources import TrainingData, training_source
from sanactl.data.tables import Examples, RecordTable

__all__ = ["open_examples", "open_training_data"]


def open_training_data(
    reference: str | None,
    settings: DataSettings | None = None,
    *,
    records: Sequence[dict[str, Any]] | None = None,
    **options: Any,
) -> TrainingData:
    """The source for `--data`: image records if they are given, else what is named, else the built-in world.

    Args:
        reference: what docs/data.md lists; None is "builtin:shapes".
        settings: how to read it.
        records: image records.
        options: fields of `DataSettings` by name (`seed=1, height=64, width=64`), in place of those of `settings`.

    Raises:
        InputError: it is of no format, has no images with captions, or cannot be read.
        UsageError: settings that exclude each other.
    """
    chosen = replace(settings or DataSettings(), **options)
    if records is not None:
        return training_source(RecordTable(records, chosen.captions, rule=chosen.rule), chosen)
    format, found = find_format(BUILTIN if reference is None else reference)
    return format.open_for_training(found, chosen)


def open_examples(
    reference: str | None,
    settings: DataSettings | None = None,
    *,
    records: Sequence[dict[str, Any]] | None = None,
    **options: Any,
) -> Examples:
    """The images and captions that `--data` names, as they are stored; a stream is read once, in its own order.

    Args:
        reference, settings, records, options: as of `open_training_data`.

    Raises:
        InputError: it is of no format, has no images with captions, or cannot be read.
    """
    chosen = replace(settings or DataSettings(), **options, once=True)
    if records is not None:
        return RecordTable(records, chosen.captions, rule=chosen.rule)
    format, found = find_format(BUILTIN if reference is None else reference)
    check_scored(chosen, format.scored, format.name)
    return format.open(found, chosen)
