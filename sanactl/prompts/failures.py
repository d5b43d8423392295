"""The file of records that no new prompt was found for."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import IO

from sanactl.files.atomic import atomic_path
from sanactl.records.records import Record, dumps

__all__ = ["FailedRecords"]


class FailedRecords:
    """Writes records to a file, which is made if there is at least one, whole or not at all.

    Used as a context manager: the file gets its name at the end of the body.

    Args:
        path: the file; None only counts.
        force: replace one that is there.

    Attributes:
        count: how many there were.
        reasons: `rewrite_error` of the first few different ones.
    """

    def __init__(self, path: Path | None, *, force: bool = False) -> None:
        self.path, self.count = path, 0
        self.reasons: list[str] = []
        self._force = force
        self._stack = contextlib.ExitStack()
        self._stream: IO[str] | None = None

    def add(self, record: Record) -> None:
        """Writes one.

        Raises:
            OSError: it cannot be written.
        """
        self.count += 1
        reason = str(record["rewrite_error"])
        if len(self.reasons) < 3 and reason not in self.reasons:
            self.reasons.append(reason)
        if self.path is None:
            return
        if self._stream is None:
            temporary = self._stack.enter_context(atomic_path(self.path, force=self._force))
            self._stream = self._stack.enter_context(temporary.open("w", encoding="utf-8"))
        self._stream.write(dumps(record) + "\n")

    def __enter__(self) -> FailedRecords:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
