"""Results about image files in a file of JSON lines, found again by the image's content.

A line begins with `image`, the sha256 of the image's file, and `by`, a digest of what the result depends on. Lines of
others are passed over.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.files.append import append_lines
from sanactl.files.regular import open_regular
from sanactl.records.jsonl import dump_json, parse_json

__all__ = ["KeptLines"]

MAX_LINE = 1 << 28  # bytes


class KeptLines:
    """A file of results.

    Args:
        path: the file; a new one is made when the first results are kept.
        by: what the results depend on, 32 hexadecimal digits.
        what: what errors call the results ("detections"); the option that names the file is called so, too.

    Raises:
        InputError: the file cannot be read.
    """

    def __init__(self, path: Path, by: str, what: str) -> None:
        self.path, self.by, self.what = path, by, what
        self._places: dict[str, list[tuple[int, int]]] = {}  # image to offset and size of its lines
        self._of: dict[str, str] = {}
        if not os.path.lexists(path):
            return
        start, mine = 0, f'"by": "{by}"'.encode()
        try:
            with open_regular(path) as file:
                while line := file.readline(MAX_LINE):
                    if line.endswith(b"\n") and mine in line[:200]:
                        image = line[11:75].decode("ascii", "replace")
                        self._places.setdefault(image, []).append((start, len(line)))
                    start += len(line)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None

    def of(self, image: Path) -> list[dict[str, Any]]:
        """The lines kept for an image's content, the oldest first.

        Raises:
            InputError: the image cannot be read, or a line is no longer JSON.
        """
        places = self._places.get(self._image(image), [])
        if not places:
            return []
        try:
            with open_regular(self.path) as file:
                return [self._line(file, *place) for place in places]
        except (OSError, ValueError):
            raise self.damaged(image) from None

    def _line(self, file: Any, offset: int, size: int) -> dict[str, Any]:
        file.seek(offset)
        found = parse_json(file.read(size).decode())
        if not isinstance(found, dict):
            raise ValueError
        return found

    def damaged(self, image: Path) -> InputError:
        """The error about a line that cannot be used."""
        return InputError(
            f"{self.path}: the {self.what} of {image} are damaged", hint="remove the file, or name another"
        )

    def put(self, results: Iterable[tuple[Path, dict[str, Any]]]) -> None:
        """Adds lines: (image, fields).

        Raises:
            InputError: the file cannot be written, or an image cannot be read.
        """
        # The first two fields stand where `__init__` looks for them.
        lines = [
            dump_json({"image": self._image(path), "by": self.by, "path": str(path), **fields}) + "\n"
            for path, fields in results
        ]
        try:
            append_lines(self.path, "".join(lines).encode())
        except OSError as error:
            raise InputError(
                f"{self.path}: {self.what} cannot be kept ({(error.strerror or str(error)).lower()})",
                hint=f"--{self.what} names another file, --{self.what} off keeps none",
            ) from None

    def _image(self, path: Path) -> str:
        """sha256 of an image's file; a batch reads each once."""
        name = str(path)
        if name not in self._of:
            if len(self._of) >= 256:  # a batch asks for each twice, and no later one does
                self._of.clear()
            try:
                with open_regular(path, what="image") as file:
                    self._of[name] = hashlib.sha256(file.read()).hexdigest()
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        return self._of[name]
