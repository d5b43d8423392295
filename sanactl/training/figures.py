"""The figures of every step in a file beside the target, written after each step."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from sanactl.files.atomic import atomic_path
from sanactl.records.records import dumps

__all__ = ["FiguresFile", "figures_path", "is_figures"]

_SUFFIXES = (".st", ".safetensors")


def figures_path(target: Path) -> Path:
    """`tuned.train.jsonl` for `tuned.st`. Only the ending .st is cut off: `sana-1.5` is a folder."""
    stem = target.stem if target.suffix.lower() in _SUFFIXES else target.name
    return target.with_name(f"{stem}.train.jsonl")


def is_figures(path: Path) -> bool:
    """Whether a file holds a run's figures (by its beginning), is empty, or is not there."""
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except FileNotFoundError:
        return True
    return b'"train_loss"' in head or (len(head) < 32 and b'{"kind"'.startswith(head[:7]))


class FiguresFile:
    """`train_loss` score records of a run, a line a step.

    The file is written from the first step on. A resumed run begins it anew, with the steps that are done already.
    While the result of an earlier run is there, the file stays that run's, and this run's figures are written by
    `finish`. A full disk does not end the training.

    Args:
        path: of the file.
        target: the checkpoint that the run makes.
        note: takes a line for people.
    """

    def __init__(self, path: Path, target: Path, note: Callable[[str], object] = lambda line: None) -> None:
        self.path, self.target = path, target
        self._note, self._waits = note, os.path.lexists(target)
        self._points: list[dict[str, Any]] = []
        self._file: TextIO | None = None

    def __enter__(self) -> FiguresFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def add(self, point: dict[str, Any]) -> None:
        """Writes the figures of one step."""
        self._points.append(point)
        if self._waits:
            return
        try:
            if self._file is None:
                self._file = self.path.open("w", encoding="utf-8")
            self._file.write(self._line(point))
            self._file.flush()
        except OSError as error:
            self._waits = True
            self._note(
                f"{self.path}: no more figures until the end ({os.strerror(error.errno or 0).lower()})"
            )
            self._close()

    def finish(self) -> None:
        """Writes all figures, once the run has its result; without steps the file stays as it is.

        Raises:
            SanactlError: the file cannot be written.
        """
        self._close()
        if self._points:
            with atomic_path(self.path, force=True) as temporary:
                temporary.write_text("".join(map(self._line, self._points)), encoding="utf-8")

    def _line(self, point: dict[str, Any]) -> str:
        record = {"kind": "score", "metric": "train_loss", "checkpoint": str(self.target), **point}
        return dumps(record) + "\n"

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()  # writes what a full disk refused before
            except OSError:
                self._waits = True
