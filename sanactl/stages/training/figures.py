"""The figures of every step in a file beside the target, written as they come: to be followed, and there after a stop."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from sanactl.io.records import dumps

__all__ = ["FiguresFile", "figures_path"]

_SUFFIXES = (".st", ".safetensors")


def figures_path(target: Path) -> Path:
    """`tuned.train.jsonl` for `tuned.st`; of any other name nothing is cut off: `sana-1.5` is a folder."""
    stem = target.stem if target.suffix in _SUFFIXES else target.name
    return target.with_name(f"{stem}.train.jsonl")


class FiguresFile:
    """`train_loss` score records of a run, a line a step.

    Nothing is touched before the first step; a run that goes on begins the file anew, with the steps that it has done.

    Args:
        path: of the file.
        target: the checkpoint that the run makes.
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.path, self.target = path, target
        self._file: TextIO | None = None

    def __enter__(self) -> FiguresFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, point: dict[str, Any]) -> None:
        """Writes the figures of one step."""
        if self._file is None:
            self._file = self.path.open("w", encoding="utf-8")
        record = {"kind": "score", "metric": "train_loss", "checkpoint": str(self.target), **point}
        self._file.write(dumps(record) + "\n")
        self._file.flush()
