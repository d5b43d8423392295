"""The records of a run on their way out: to stdout, to a file, into a table on a terminal and onto a contact sheet."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sanactl.cli.frame.board import the_board
from sanactl.cli.frame.outputs import check_file, free_names
from sanactl.cli.frame.progress import open_progress
from sanactl.cli.frame.stdout import write_line
from sanactl.cli.frame.terminal import is_first_process, note
from sanactl.errors import OutputExistsError, SanactlError
from sanactl.files.atomic import atomic_path
from sanactl.files.progress import SILENT, Progress
from sanactl.records.records import SHARD, Record, dumps
from sanactl.records.shards import shard_stem

if TYPE_CHECKING:
    from sanactl.records.shards import Shard
    from sanactl.report.sheet import ContactSheet

__all__ = ["RecordsOut"]

MOST_SHOWN = 1000  # images in a table on a terminal


def _for_people(records: Iterable[Record]) -> tuple[list[Record], int]:
    """The records to show on a terminal, at most `MOST_SHOWN` images, and the number of images left out."""
    shown: list[Record] = []
    images = 0
    for record in records:
        images += record["kind"] == "image"
        if record["kind"] != "image" or images <= MOST_SHOWN:
            shown.append(record)
    return shown, max(images - MOST_SHOWN, 0)


class RecordsOut:
    """Writes the records of one run. With several processes, only the first one writes.

    `_fault` is what could not be written; `Invocation.finish` raises it when everything else is in place.
    """

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._fault: SanactlError | None = None
        self._renamed: dict[Path, Path] = {}
        self._natural: set[Path] = set()
        self._again: set[Path] = set()
        self._counts: Counter[str] = Counter()
        self._sheet: ContactSheet | None = None

    @property
    def progress(self) -> Progress:
        """The progress object to give to a stage."""
        if self._progress is None:
            self._progress = open_progress() if is_first_process() else SILENT
        return self._progress

    def emit(
        self,
        records: Iterable[Record],
        *,
        show: Callable[[list[Record]], None] | None = None,
        take_all: bool = False,
    ) -> None:
        """Write records to stdout as they come; on a terminal, collect them and show them as a table.

        Args:
            show: the function that shows them on a terminal.
            take_all: whether to take all records even if they cannot go to stdout, for example because they are also
            written to a file. If stdout's reader leaves (`| head -1`), that is not an error. If stdout cannot be
            written, `finish` raises, after all other outputs are written.

        Raises:
            BrokenPipeError: nobody reads stdout any more, and `take_all` is false.
            SanactlError: stdout cannot be written, and `take_all` is false.
        """
        if show is not None and sys.stdout.isatty():
            collected, more = _for_people(r for r in self._counting(records) if r["kind"] != SHARD)
            if self._progress is not None:
                self._progress.close()
            if (board := the_board()) is not None:
                board.settle()
            if is_first_process():
                show(collected)
                if more:
                    note(f"and {more:,} more images")
            return
        has_reader = True
        for record in self._counting(records):
            try:
                if has_reader:
                    write_line(dumps(record))
            except (BrokenPipeError, SanactlError) as error:
                if not take_all:
                    raise
                has_reader = False
                self._fault = error if isinstance(error, SanactlError) else None

    def _counting(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records if self._sheet is None else self._sheet.watching(records):
            self._counts[record["kind"]] += 1
            yield record

    def records_file(self, named: Path | None, stem: str, *, force: bool, shard: Shard | None = None) -> Path:
        """The file of records to write, checked before any work: the one named, else STEM.jsonl, STEM-2.jsonl, ...

        A shard's is STEM.I-of-N.jsonl; it takes the place of the same shard's earlier one, so that `STEM.*-of-N.jsonl`
        are those of one run.

        Raises:
            SanactlError: it could not be written at the end; see `check_file`.
        """
        path = named
        if path is None:
            path = Path(f"{shard_stem(stem, shard)}.jsonl")
            if shard is not None:  # also one that the same job writes meanwhile
                self._again.add(path)
            elif os.path.lexists(path) and not force:
                path = next(free_names(path))
            self._natural.add(path)
        if is_first_process():
            check_file(path, "records", force=self.replaces(path, force))
        return path

    def replaces(self, path: Path, force: bool) -> bool:
        """Whether a file of this name is replaced: with --force, or as the same shard's earlier output."""
        return force or path in self._again

    def tee(self, records: Iterable[Record], path: Path | None, *, force: bool) -> Iterator[Record]:
        """Pass records on and write them to `path` (whole or not at all); with None, nothing is written.

        If another process made a file of this name meanwhile, the records go to the next free name. `finish` writes that
        name into the journal, and raises if the user had chosen the first name.
        """
        if path is None or not is_first_process():
            yield from records
            return
        stream: IO[str] | None = None
        complete = False
        try:
            with atomic_path(path, force=self.replaces(path, force)) as temporary:
                stream = temporary.open("w+", encoding="utf-8")
                for record in records:
                    stream.write(dumps(record) + "\n")
                    yield record
                stream.flush()
                complete = True
        except OutputExistsError:
            if stream is None or not complete:
                raise
            self._rename(path, stream)
        finally:
            if stream is not None:
                # On a full disk, writing would fail again.
                with contextlib.suppress(OSError):
                    stream.close()

    def _rename(self, path: Path, written: IO[str]) -> None:
        """Give the file that was written for `path` the next free name."""
        for candidate in free_names(path):
            written.seek(0)
            # Another process may take this name, too.
            with contextlib.suppress(OutputExistsError):
                with atomic_path(candidate) as temporary, temporary.open("w", encoding="utf-8") as stream:
                    shutil.copyfileobj(written, stream)
                self._renamed[path] = candidate
                line = f"{path} was made meanwhile by another command (of this pipe, or of another run); the records of this run are in {candidate}"
                if path in self._natural:
                    note(line)
                else:
                    self._fault = self._fault or OutputExistsError(line)
                return

    def sheet(self, path: Path | None, *, force: bool) -> None:
        """Also draw the images of emitted records into a contact sheet; None draws none.

        Raises:
            SanactlError: the name cannot be written; raised before any work.
        """
        if path is not None and is_first_process():
            from sanactl.report.sheet import ContactSheet

            self._sheet = ContactSheet(path, force=force)

    @contextlib.contextmanager
    def watching(self) -> Iterator[Progress]:
        """The progress object; it is closed at the end in every case."""
        try:
            yield self.progress
        finally:
            self.progress.close()
