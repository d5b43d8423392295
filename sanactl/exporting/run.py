"""`export`: look at all records, write the shards that are missing, then the index files and the card."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from sanactl.exporting.card import write_card
from sanactl.exporting.folder import CARD, ExportFolder
from sanactl.exporting.formats.registry import open_format
from sanactl.exporting.plan import ExportPlan
from sanactl.exporting.planning import plan_export
from sanactl.exporting.settings import ExportSettings
from sanactl.files.folder_lock import FolderLock
from sanactl.files.progress import SILENT, Progress
from sanactl.records.journal import Journal

__all__ = ["Export", "target_name"]

KEPT = "records.jsonl"


def target_name(source: str | os.PathLike[str] | None, to: str) -> str:
    """The natural name of a dataset: that of the records' file or folder, and the format."""
    stem = Path(source).stem if source is not None else "images"
    return f"{stem if stem.strip('.-') and stem != 'stdin' else 'images'}-{to}"


class Export:
    """A dataset while it is written. Other runs cannot write it until the body ends.

    What is done stays when the run is stopped: a shard has its name when it is whole, and the same call goes on from
    there. The result is the one of an undisturbed run, byte for byte.

    Args:
        target: the folder to write; one that the same records and settings began is continued.
        settings: what to write.

    Raises:
        InputError: another run writes this folder.
        OutputExistsError: the folder holds something that no export wrote.
        SanactlError: it cannot be written.
        UsageError: no such format, or a setting that it does not have.
    """

    def __init__(self, target: Path, settings: ExportSettings, *, force: bool = False) -> None:
        self.to = open_format(settings.to)
        self.to.check(settings)
        self.target, self.settings, self.force = target, settings, force
        self.folder = ExportFolder(target, self.to)
        self.folder.check_place()
        # The state cannot be inside the folder, which is what people upload.
        self._state = target.with_name(f".{target.name}.export")
        self._lock = FolderLock(target, self._state)
        self._plan: ExportPlan | None = None
        self._begun = self._done = False

    def __enter__(self) -> Export:
        with contextlib.ExitStack() as held:
            held.enter_context(self._lock)
            self.folder.check_content()
            held.pop_all()  # __exit__ releases the lock
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._done or not self._begun:  # else the next run needs it
            with contextlib.suppress(OSError):
                (self._state / KEPT).unlink(missing_ok=True)
        self._lock.__exit__(kind, error, trace)

    def write(
        self,
        records: Iterable[dict[str, Any]],
        *,
        source: str | None = None,
        journal: Journal | None = None,
        progress: Progress = SILENT,
    ) -> dict[str, Any]:
        """Writes the dataset, or goes on writing it.

        Args:
            records: image records.
            source: the file or folder that they come from, for the card; None for a pipe.
            journal: tells the card which commands made them.

        Returns:
            {"path", "to", "images", "shards", "bytes" (of the image files), "skipped" (records left out), "columns"
            (names to types), "key" (a digest of all that the dataset depends on), "made" (False if it was there
            already)}.

        Raises:
            InputError: no images, or one too many cannot be used; or an image changes meanwhile.
            OutputExistsError: the folder holds another export, and `force` is false.
            SanactlError: the disk is full, or there is no permission.
        """
        plan = self._plan = plan_export(
            records, self.settings, self.to, self._state / KEPT, progress=progress
        )
        finished = self.folder.begin(plan, self.force)
        self._begun = True
        made = self._shards(plan, progress)
        if made or not finished or not self.folder.has_index(plan):
            self.to.write_index(self.target, plan)
            if not (finished and (self.target / CARD).exists()):  # a person may have completed it
                write_card(self.target / CARD, plan, self.to, source=source, journal=journal)
            self.folder.complete(plan)
            made = True
        self._done = True
        return {
            "path": str(self.target),
            "to": self.to.name,
            "images": plan.images,
            "shards": len(plan.shards),
            "bytes": plan.nbytes,
            "skipped": plan.skipped,
            "columns": {"image": "image", **plan.schema},
            "key": plan.key,
            "made": made,
        }

    def _shards(self, plan: ExportPlan, progress: Progress) -> bool:
        """Writes the shards that are not there; returns whether there were any."""
        missing = [shard for shard in plan.shards if not self.folder.has_shard(shard.number, plan)]
        progress.start(plan.images, "writing", done=plan.images - sum(shard.rows for shard in missing))
        try:
            for shard in missing:
                self.to.write_shard(self.target, shard, plan)
                progress.advance(shard.rows, shard=f"{shard.number + 1}/{len(plan.shards)}")
        finally:
            progress.close()
        return bool(missing)

    def records(self) -> Iterator[dict[str, Any]]:
        """The records of the images in the dataset, as they came; valid until the body ends."""
        assert self._plan is not None
        return self._plan.records()
