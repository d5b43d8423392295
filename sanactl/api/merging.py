"""`sanactl.merge`: the outputs of all shards as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sanactl.api.inputs import PathLike

if TYPE_CHECKING:
    from sanactl.records.records import Record

__all__ = ["merge"]


def merge(
    files: PathLike | Sequence[PathLike], *, output: PathLike | None = None, force: bool = False
) -> list[Record]:
    """Joins what commands with `--shard 0/N` to `--shard N-1/N` wrote, if it is complete.

    Args:
        files: the files of records, in any order; one file may hold several shards, one after the other.
        output: also write the records to this .jsonl file.
        force: replace `output` where it is there.

    Returns:
        the records of one run without `--shard`, in its order.

    Raises:
        UsageError: no file is given.
        InputError: a shard is missing, there twice, cut short, changed, or of other settings or another input.
        OutputExistsError: `output` is there, and `force` was not given.

    Source: docs/clusters.md.
    """
    from sanactl.errors import UsageError
    from sanactl.files.atomic import check_target
    from sanactl.records.merge import merged, read_parts
    from sanactl.records.records import write_records

    given = [files] if isinstance(files, str) or not isinstance(files, Sequence) else list(files)
    if not given:
        raise UsageError("no files to merge")
    if output is not None:
        check_target(Path(output), force)
    records = list(merged(read_parts([Path(file) for file in given])))
    if output is not None:
        write_records(records, Path(output), force=force)
    return records
