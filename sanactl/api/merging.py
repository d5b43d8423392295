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
        files: the files of records, in any order; one file may hold several shards, one after the other. Or the folder
            of samples that jobs share.
        output: also write the records to this .jsonl file. With FOLDER/images.jsonl, a folder of samples is complete.
        force: replace `output` where it is there.

    Returns:
        the records of one run without `--shard`, in its order.

    Raises:
        UsageError: no file is given, or `output` is one of them.
        InputError: a shard is missing, there twice, cut short, changed, or of other settings or another input.
        OutputExistsError: `output` is there, and `force` was not given.

    Source: docs/clusters.md.
    """
    from sanactl.errors import InputError, UsageError
    from sanactl.files.atomic import check_target
    from sanactl.records.merge import check_output, merged, read_parts
    from sanactl.records.records import write_records
    from sanactl.sampling.dataset_files import LISTING, listed_parts, write_dataset_files

    given = [files] if isinstance(files, str) or not isinstance(files, Sequence) else list(files)
    if not given:
        raise UsageError("no files to merge")
    paths = [Path(file) for file in given]
    folder = paths[0] if len(paths) == 1 and paths[0].is_dir() else None
    if folder is not None and not (paths := listed_parts(folder)):
        raise InputError(
            f"{folder}: holds no records of --shard",
            hint=f"folders of encode are joined by sanactl merge {folder}",
        )
    parts = read_parts(paths)
    if output is not None:
        check_output(parts, Path(output))
        check_target(Path(output), force)
    records = list(merged(parts))
    if output is not None:
        write_records(records, Path(output), force=force)
    if folder is not None and output is not None and Path(output) == folder / LISTING:
        write_dataset_files(folder, records)
    return records
