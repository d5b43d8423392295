"""What a format of datasets is: how a shard is written, and what stands beside the shards."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sanactl.errors import UsageError
from sanactl.exporting.plan import ExportPlan, Shard
from sanactl.exporting.rows import Picture, Row, changed
from sanactl.exporting.settings import ExportSettings
from sanactl.files.atomic import atomic_dir, atomic_path
from sanactl.files.copying import copy_file
from sanactl.records.jsonl import dump_json

__all__ = ["ExportFormat", "ImageFolders", "write_json", "write_lines"]

FOLDER_IMAGES = 10_000  # The Hub takes at most so many files in a folder.


class ExportFormat(ABC):
    """A format that `export --to` can name; `sanactl.exporting.formats.registry.EXPORTS` lists them.

    A shard's files depend on the plan alone: the same records and settings give the same bytes. A shard is there when
    the last of its files is, so `write_shard` gives each file its name when it is whole, in the order of `shard_files`.

    Attributes:
        name: what `--to` calls it.
        about: one sentence for the card and the docs.
        most_images: the most images of a shard, whatever was asked for.
        needs_label: whether each record must have the answer yes or no.
        takes_links: whether its images are files of their own, which can be hard links.
        tasks: what the dataset is for, as the Hub names it.
    """

    name: str
    about: str
    most_images: int = 1_000_000
    needs_label: bool = False
    takes_links: bool = False
    tasks: tuple[str, ...] = ("text-to-image",)

    def check(self, settings: ExportSettings) -> None:
        """Refuses settings that this format cannot have.

        Raises:
            UsageError: says which.
        """
        if settings.link and not self.takes_links:
            raise UsageError(
                f"--link is for formats with image files, and {self.name} has none",
                hint="leave --link out, or give --to imagefolder or --to nvila-json",
            )
        if settings.label is not None and not self.needs_label:
            raise UsageError(
                f"--label-field is for a format with an answer, and {self.name} has none",
                hint="leave --label-field out, or give --to nvila-json",
            )

    def fault(self, text: str, picture: Picture) -> str | None:
        """Why a row cannot be in this format; None if it can."""
        return None

    @abstractmethod
    def shard_files(self, number: int, shards: int) -> tuple[str, ...]:
        """The files (or folders) of shard `number` of `shards`, as paths below the dataset's folder."""

    @abstractmethod
    def write_shard(self, folder: Path, shard: Shard, plan: ExportPlan) -> None:
        """Writes the files of a shard that are not there.

        Raises:
            InputError: an image has changed since it was looked at.
            SanactlError: the disk is full, or there is no permission.
        """

    @abstractmethod
    def index_files(self, plan: ExportPlan) -> tuple[str, ...]:
        """The files that are written after all shards."""

    @abstractmethod
    def write_index(self, folder: Path, plan: ExportPlan) -> None:
        """Writes `index_files`; those that are there are replaced."""

    @abstractmethod
    def data_files(self) -> list[str]:
        """Patterns of the files that `datasets.load_dataset(folder)` reads, for the card."""

    def features(self, plan: ExportPlan) -> list[dict[str, Any]]:
        """The columns as a card lists them (`datasets.Features` in YAML); empty where the files say them."""
        return []

    def loading(self, folder: str) -> str:
        """The line of Python that opens the dataset with `datasets`."""
        return f'dataset = datasets.load_dataset({json.dumps(folder)}, split="train")'


class ImageFolders(ExportFormat):
    """Image files in numbered folders of at most 10,000, with one index beside them."""

    most_images = FOLDER_IMAGES
    takes_links = True

    def shard_files(self, number: int, shards: int) -> tuple[str, ...]:
        return (f"images/{number:05d}",)

    def write_shard(self, folder: Path, shard: Shard, plan: ExportPlan) -> None:
        (name,) = self.shard_files(shard.number, len(plan.shards))
        (folder / "images").mkdir(exist_ok=True)
        with atomic_dir(folder / name) as place:
            for row in plan.rows(shard):
                target = place / f"{row.key}{row.picture.suffix}"
                copy_file(row.path, target, link=plan.settings.link)
                if target.stat().st_size != row.picture.size:
                    raise changed(row.path)

    def placed(self, plan: ExportPlan) -> Iterator[tuple[str, Row]]:
        """Each row with the path of its image below the dataset's folder."""
        for shard in plan.shards:
            (name,) = self.shard_files(shard.number, len(plan.shards))
            for row in plan.rows(shard):
                yield f"{name}/{row.key}{row.picture.suffix}", row


def write_json(path: Path, value: Any) -> None:
    """Writes a file of JSON, whole; one that is there is replaced."""
    with atomic_path(path, force=True) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def write_lines(path: Path, values: Iterable[Any], *, array: bool = False) -> None:
    """Writes JSON values one a line, as JSON lines or as one JSON array; a file that is there is replaced."""
    with atomic_path(path, force=True) as temporary, temporary.open("w", encoding="utf-8") as stream:
        between = "[\n" if array else ""
        for value in values:
            stream.write(between + dump_json(value))
            between = ",\n" if array else "\n"
        stream.write("\n]\n" if array else "\n")
