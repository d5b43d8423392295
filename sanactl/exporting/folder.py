"""The folder of an export: its index, what it may hold, and replacing an earlier export."""

from __future__ import annotations

import contextlib
import os
import posixpath
import shutil
from pathlib import Path
from typing import Any

from sanactl.errors import InputError, OutputExistsError
from sanactl.exporting.formats.base import ExportFormat, write_json
from sanactl.exporting.plan import ExportPlan
from sanactl.files.atomic import check_target
from sanactl.files.json_values import parse_json
from sanactl.files.regular import open_regular
from sanactl.files.temporaries import reclaim

__all__ = ["CARD", "INDEX", "ExportFolder"]

INDEX = "export.json"
CARD = "README.md"
FORMAT = "sanactl-export-1"
_MOST = 2**28  # bytes of an index


class ExportFolder:
    """The folder that an export writes.

    `export.json` is its index: `format`, `to`, `key` (a digest of records and settings), `complete`, the names of all
    `files`, and at the end `images`, `bytes`, `shards` and `skipped`.
    """

    def __init__(self, path: Path, to: ExportFormat) -> None:
        self.path, self.to = path, to

    def check_place(self) -> None:
        """Refuses a place where no folder can be. What the folder holds is for `check_content`.

        Raises:
            OutputExistsError: it is a file.
            SanactlError: the folder cannot be made.
            UsageError: it has no name of its own, such as `.`.
        """
        if self.path.name in ("", "..") or not os.path.lexists(self.path):
            check_target(self.path, force=True)  # another run may make it at this moment
        elif not self.path.is_dir():
            raise OutputExistsError(f"{self.path} is a file", hint="name a folder with -o")

    def check_content(self) -> None:
        """Refuses a folder of others. Only under the lock: a run that begins has a folder without an index for a moment.

        Raises:
            OutputExistsError: it holds something that no export wrote.
        """
        if not self.path.is_dir():
            return
        reclaim(self.path)
        if self._index() is None and any(self.path.iterdir()):
            raise OutputExistsError(
                f"{self.path} already exists, and is no export", hint="name another with -o"
            )

    def begin(self, plan: ExportPlan, force: bool) -> bool:
        """Makes the folder and its first index, unless they are there.

        Returns:
            Whether an earlier run of the same export has finished it.

        Raises:
            OutputExistsError: it holds another export, and `force` is false.
        """
        self.check_place()
        self.check_content()
        index = self._index()
        if index is not None and index.get("key") == plan.key:
            return index.get("complete") is True
        if index is not None:
            if not force:
                raise OutputExistsError(
                    f"{self.path} was exported from other records or with other settings",
                    hint="name another with -o, or replace it with --force",
                )
            self._remove(index)
        self.path.mkdir(exist_ok=True)
        self._write(plan, complete=False)
        return False

    def has_shard(self, number: int, plan: ExportPlan) -> bool:
        """Whether a shard is written."""
        return (self.path / self.to.shard_files(number, len(plan.shards))[-1]).exists()

    def has_index(self, plan: ExportPlan) -> bool:
        """Whether everything beside the shards is written."""
        return all((self.path / name).exists() for name in (*self.to.index_files(plan), CARD))

    def complete(self, plan: ExportPlan) -> None:
        """Marks the export as finished."""
        self._write(plan, complete=True)

    def _write(self, plan: ExportPlan, *, complete: bool) -> None:
        reclaim(self.path)
        count = len(plan.shards)
        files = [name for shard in plan.shards for name in self.to.shard_files(shard.number, count)]
        files += [*self.to.index_files(plan), CARD]
        about: dict[str, Any] = {
            "format": FORMAT,
            "to": self.to.name,
            "key": plan.key,
            "complete": complete,
            "files": files,
        }
        if complete:
            about |= {
                "images": plan.images,
                "bytes": plan.nbytes,
                "shards": count,
                "skipped": plan.skipped,
            }
        write_json(self.path / INDEX, about)

    def _index(self) -> dict[str, Any] | None:
        """The index of an earlier export; None if there is none."""
        with contextlib.suppress(InputError, OSError, ValueError):
            with open_regular(self.path / INDEX, most=_MOST) as stream:
                found = parse_json(stream.read().decode())
            if isinstance(found, dict) and found.get("format") == FORMAT:
                return found
        return None

    def _remove(self, index: dict[str, Any]) -> None:
        """Removes what an earlier export wrote; the index last, so that a stopped removal can go on.

        Raises:
            OutputExistsError: files of others are left.
        """
        files = index.get("files")
        for name in files if isinstance(files, list) else ():
            if isinstance(name, str) and _is_below(name):
                _remove_one(self.path / name)
                with contextlib.suppress(OSError):  # `images` and `data`, when they are empty
                    (self.path / name).parent.rmdir()
        left = sorted(path.name for path in self.path.iterdir() if path.name != INDEX)
        if left:
            raise OutputExistsError(
                f"{self.path} holds {left[0]}, which no export wrote", hint="name another with -o"
            )
        _remove_one(self.path / INDEX)


def _is_below(name: str) -> bool:
    """Whether a name from an index is a path inside the folder."""
    parts = posixpath.normpath(name).split("/")
    return not posixpath.isabs(name) and ".." not in parts and parts != ["."] and "\0" not in name


def _remove_one(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
