"""Looking at all records once, to plan the shards.

Records that pass are kept in a file, with what is known of their images. So a pipe can be read, memory does not grow
with the number of images, and faults are found before anything is written. From then on each shard is a function of
this file.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from sanactl.data.bad import check_bad
from sanactl.errors import InputError
from sanactl.exporting.columns import public
from sanactl.exporting.formats.base import ExportFormat
from sanactl.exporting.plan import ExportPlan, Shard, unpacked
from sanactl.exporting.rows import Picture, label_of, look_at, texts_of
from sanactl.exporting.settings import ExportSettings
from sanactl.files.atomic import atomic_path
from sanactl.files.content import json_digest
from sanactl.files.progress import SILENT, Progress
from sanactl.files.threads import processors
from sanactl.records.jsonl import dump_json

__all__ = ["plan_export"]

FORMAT = 1  # of what an export writes; another number, another key
_AT_ONCE = 32  # images that a thread looks at before the records go on
_MOST_NAMES = 10_000  # tasks and checkpoints that are counted


def plan_export(
    records: Iterable[dict[str, Any]],
    settings: ExportSettings,
    to: ExportFormat,
    kept: Path,
    *,
    progress: Progress = SILENT,
) -> ExportPlan:
    """Reads all records, decodes their images, and plans the shards.

    Args:
        records: image records.
        to: the format.
        kept: the file to keep the records in. If an earlier run left it, what it says of unchanged images is used.

    Raises:
        InputError: there are no images, or one too many cannot be used.
        SanactlError: the records cannot be kept, for example because the disk is full.
    """
    plan = ExportPlan(settings, kept, to.needs_label)
    planner = _Planner(plan, to)
    progress.start(None, "looking at images")
    try:
        with _Earlier(kept) as earlier, atomic_path(kept, force=True) as temporary:
            with temporary.open("wb") as stream:
                for record, found in _looked_at(records, earlier):
                    planner.add(record, found, stream, progress)
                    progress.advance()
            if not plan.images:
                what = f"all {plan.skipped:,} were left out" if plan.skipped else "no image records came in"
                raise InputError(f"nothing to export: {what}", hint="the command before may have failed")
    finally:
        progress.close()
    planner.end()
    return plan


class _Planner:
    """Adds record after record to a plan."""

    def __init__(self, plan: ExportPlan, to: ExportFormat) -> None:
        self.plan, self.to = plan, to
        self._digest = hashlib.sha256()
        self._offset = self._begun = 0
        self._rows = self._bytes = 0

    def add(
        self,
        record: dict[str, Any],
        found: Picture | InputError,
        stream: IO[bytes],
        progress: Progress,
    ) -> None:
        """A further record; one that cannot be used is left out and counted."""
        try:
            if isinstance(found, InputError):
                raise found
            line, fields = self._checked(record, found)
        except InputError as error:
            self.plan.skipped += 1
            check_bad(self.plan.skipped, self.plan.settings.max_bad, error)
            progress.note(f"left out: {error.message}")
            return
        plan = self.plan
        plan.columns.add(fields, self._offset)
        most = min(plan.settings.shard_images, self.to.most_images)
        if self._rows and (self._rows >= most or self._bytes + found.size > plan.settings.shard_bytes):
            self._close()
        self._rows, self._bytes = self._rows + 1, self._bytes + found.size
        plan.first = plan.first or record
        plan.images += 1
        plan.nbytes += found.size
        plan.suffixes[found.suffix] += 1
        _count(plan.tasks, record.get("tag"), str(record.get("tag")))
        name = record.get("checkpoint")
        _count(plan.checkpoints, name, (str(name), str(record.get("digest") or "")))
        stream.write(line)
        self._offset += len(line)

    def _checked(self, record: dict[str, Any], found: Picture) -> tuple[bytes, dict[str, Any]]:
        """A record's line in the file, and its fields for the columns."""
        settings = self.plan.settings
        texts = texts_of(record, settings.texts)
        label = label_of(record, settings.answer) if self.to.needs_label else None
        if fault := self.to.fault(next(iter(texts.values())) or "", found):
            raise InputError(f"{record['path']}: {fault}")
        try:
            line = (dump_json({"record": record, "picture": asdict(found)}) + "\n").encode()
        except (ValueError, TypeError) as error:  # only records that come from Python can hold such values
            raise InputError(f"{record['path']}: its record is not JSON ({error})") from None
        fields = public(record, settings.texts)
        identity = [texts, label, fields, found.suffix, found.size, found.changed]
        self._digest.update(dump_json(identity).encode() + b"\n")
        return line, fields

    def _close(self) -> None:
        """Ends the shard that is being filled."""
        shards = self.plan.shards
        first = shards[-1].first + shards[-1].rows if shards else 0
        shards.append(Shard(len(shards), first, self._rows, self._begun))
        self._begun, self._rows, self._bytes = self._offset, 0, 0

    def end(self) -> None:
        """Ends the last shard and sets the key."""
        self._close()
        settings = {k: v for k, v in asdict(self.plan.settings).items() if k not in ("max_bad", "link")}
        settings["label"] = self.plan.settings.answer
        self.plan.key = json_digest([FORMAT, settings, self._digest.hexdigest()])


def _count(counts: Counter[Any], value: Any, key: Any) -> None:
    if value is not None and (key in counts or len(counts) < _MOST_NAMES):
        counts[key] += 1


class _Earlier:
    """The records that a stopped run kept, read along with the same records; each image is then known already."""

    def __init__(self, kept: Path) -> None:
        self._stream: IO[bytes] | None = None
        with contextlib.suppress(OSError):
            self._stream = kept.open("rb")
        self._next: tuple[dict[str, Any], Picture] | None = None

    def __enter__(self) -> _Earlier:
        self._advance()
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def _advance(self) -> None:
        line = self._stream.readline() if self._stream is not None else b""
        try:
            self._next = unpacked(line) if line else None
        except (ValueError, KeyError, TypeError):  # another program wrote it
            self._next = None

    def of(self, record: dict[str, Any]) -> Picture | None:
        """What is known of a record's image, if neither has changed."""
        if self._next is None or self._next[0] != record:
            return None
        picture = self._next[1]
        self._advance()
        try:
            about = os.stat(record["path"])
        except OSError:
            return None
        return picture if (about.st_size, about.st_mtime_ns) == (picture.size, picture.changed) else None


def _looked_at(
    records: Iterable[dict[str, Any]], earlier: _Earlier
) -> Iterator[tuple[dict[str, Any], Picture | InputError]]:
    """Each record with what is known of its image, or why that cannot be read; in order, looked at in threads."""
    source = iter(records)
    workers = processors()
    with ThreadPoolExecutor(workers) as threads:
        while some := list(itertools.islice(source, workers * _AT_ONCE)):
            known = [earlier.of(record) for record in some]
            yield from zip(some, threads.map(_look, some, known), strict=True)


def _look(record: dict[str, Any], known: Picture | None) -> Picture | InputError:
    try:
        return known or look_at(Path(record["path"]))
    except InputError as error:
        return error
    except OSError as error:
        return InputError(f"{record['path']}: cannot be read ({error.strerror or error})")
