"""What makes a folder of samples a dataset of images with captions: `datasets.load_dataset("base-samples")`.

GenEval's metadata.jsonl in each prompt's folder has no `file_name`, and its clauses differ from prompt to prompt. So the
`imagefolder` builder alone cannot read them. A README.md at the top says which files the dataset consists of.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from sanactl.files.atomic import atomic_path
from sanactl.records.records import Record, write_records
from sanactl.records.shards import Shard, shard_stem

__all__ = [
    "BLOCKED", "LISTING", "list_images", "list_part", "listed_number", "listed_parts", "remove_dataset_files", "write_dataset_files",
]  # fmt: skip

LISTING = "images.jsonl"
BLOCKED = "blocked.jsonl"

_PART = re.compile(r"images\.[0-9]+-of-[0-9]+\.jsonl")
_FILES = ("metadata.csv", "README.md")
_COLUMNS = ("prompt_id", "index", "seed")
_HEAD = ("file_name", "text", *_COLUMNS)
_README = """---
configs:
- config_name: default
  data_files:
  - split: train
    path:
    - metadata.csv
    - "*/samples/*.png"
---

Images that `sanactl sample` drew. Each folder is one prompt, in GenEval's layout; `images.jsonl` has the image records.
As a dataset: `datasets.load_dataset("THIS FOLDER")`.
"""


def list_images(folder: Path, records: Sequence[Record], blocked: Sequence[Record] | None = None) -> Path:
    """Writes what a folder says of all its images, when they are there: `LISTING`, and the files of a dataset.

    Args:
        folder: of the samples.
        records: their image records, with paths below the folder.
        blocked: the records of the prompts that a guard blocked, for the file `BLOCKED`; None without a guard.

    Returns:
        the file of records.
    """
    listing = folder / LISTING
    write_records(records, listing, force=True)
    if blocked is not None:
        write_records(blocked, folder / BLOCKED, force=True)
    write_dataset_files(folder, records)
    return listing


def list_part(
    folder: Path, records: Sequence[Record], blocked: Sequence[Record] | None, shard: Shard
) -> Path:
    """Writes what a shard says of its images, when they are there. The first one writes what a guard blocked, too.

    Args:
        records: of the shard, with the one at its end.
        folder, blocked: see `list_images`.

    Returns:
        the file of records, such as images.0-of-3.jsonl.
    """
    listing = folder / f"{shard_stem('images', shard)}.jsonl"
    write_records(records, listing, force=True)
    if blocked is not None and shard.part == 0:
        write_records(blocked, folder / BLOCKED, force=True)
    return listing


def listed_parts(folder: Path) -> list[Path]:
    """The files that `list_part` wrote into a folder, by name."""
    return sorted(path for path in folder.glob("images.*-of-*.jsonl") if _PART.fullmatch(path.name))


def write_dataset_files(folder: Path, records: Iterable[Record]) -> None:
    """Writes metadata.csv (file_name, text, prompt_id, index, seed; a row for each image) and README.md."""
    table, readme = (folder / name for name in _FILES)
    if not table.exists() or _is_ours(table):
        with atomic_path(table, force=True) as place, place.open("w", encoding="utf-8", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(_HEAD)
            for record in records:
                name = Path(record["path"]).relative_to(folder).as_posix()
                rows.writerow([name, record["prompt"], *(record[column] for column in _COLUMNS)])
    if not readme.exists():
        with atomic_path(readme) as place:
            place.write_text(_README, encoding="utf-8")


def listed_number(folder: Path) -> int:
    """How many images the folder's list has; 0 where there is none."""
    try:
        with (folder / LISTING).open("rb") as stream:
            return sum(1 for _ in stream)
    except OSError:
        return 0


def remove_dataset_files(folder: Path) -> None:
    """Removes what `list_images` wrote for `datasets`; files of others stay."""
    for name in _FILES:
        if _is_ours(folder / name):
            (folder / name).unlink()


def _is_ours(path: Path) -> bool:
    begin = _README if path.suffix == ".md" else ",".join(_HEAD)
    try:
        with path.open(encoding="utf-8") as stream:
            return path.is_file() and stream.read(len(begin)) == begin
    except (OSError, ValueError):
        return False
