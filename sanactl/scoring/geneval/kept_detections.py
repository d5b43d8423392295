"""Detections in a file, with masks and colours, so that other rules can score them without the model.

A line of JSON an image: `image`, the sha256 of its file; `by`, a digest of what the detections depend on; `path`; `size`,
[height, width]; `objects`, each with `class`, `score`, `box`, `color` where it was told, and `mask`, the counts of COCO's
uncompressed run-length code (pixels column by column; first those outside).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError
from sanactl.files.append import append_lines
from sanactl.files.content import json_digest
from sanactl.files.regular import open_regular
from sanactl.records.jsonl import dump_json, parse_json
from sanactl.scoring.detectors.protocol import Detected, Detector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["KeptDetections", "from_runs", "to_runs"]

MAX_LINE = 1 << 28  # bytes


class KeptDetections:
    """A file of detections of one detector; lines of others are passed over.

    Args:
        path: the file; a new one is made when the first detections are kept.
        detector: whose detections are read and kept.

    Raises:
        InputError: the file cannot be read.
    """

    def __init__(self, path: Path, detector: Detector) -> None:
        facts = getattr(detector, "facts", {})
        self.path, self.by = path, json_digest([detector.label, detector.digest, facts])[:32]
        self._places: dict[str, tuple[int, int]] = {}  # image to offset and size of its line
        self._of: dict[str, str] = {}
        if not os.path.lexists(path):
            return
        start, mine = 0, f'"by": "{self.by}"'.encode()
        try:
            with open_regular(path) as file:
                while line := file.readline(MAX_LINE):
                    if line.endswith(b"\n") and mine in line[:200]:
                        self._places[line[11:75].decode("ascii", "replace")] = start, len(line)
                    start += len(line)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None

    def get(self, image: Path) -> list[Detected] | None:
        """The detections kept for an image; None if there are none."""
        place = self._places.get(self._image(image))
        if place is None:
            return None
        try:
            with open_regular(self.path) as file:
                file.seek(place[0])
                found = parse_json(file.read(place[1]).decode())
            size = tuple(found["size"])
            return [_detected(entry, size) for entry in found["objects"]]
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            raise InputError(
                f"{self.path}: the detections of {image} are damaged", hint="remove the file, or name another"
            ) from None

    def put(self, found: Iterable[tuple[Path, Sequence[int], Sequence[Detected]]]) -> None:
        """Keeps the detections of images: (file, its height and width, objects).

        Raises:
            InputError: the file cannot be written.
        """
        lines = []
        for path, size, objects in found:
            # The first two fields stand where `__init__` looks for them.
            record = {"image": self._image(path), "by": self.by, "path": str(path), "size": [*size]}
            lines.append(dump_json({**record, "objects": [_entry(d) for d in objects]}) + "\n")
        try:
            append_lines(self.path, "".join(lines).encode())
        except OSError as error:
            raise InputError(
                f"{self.path}: detections cannot be kept ({(error.strerror or str(error)).lower()})",
                hint="--detections names another file, --detections off keeps none",
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


def _entry(found: Detected) -> dict[str, Any]:
    color = {} if found.color is None else {"color": found.color}
    mask = {} if found.mask is None else {"mask": to_runs(found.mask)}
    box = [float(v) for v in found.box]
    return {"class": found.name, **color, "score": float(found.score), "box": box, **mask}


def _detected(entry: Mapping[str, Any], size: tuple[int, ...]) -> Detected:
    x0, y0, x1, y1 = (float(v) for v in entry["box"])
    mask = from_runs(entry["mask"], size) if "mask" in entry else None
    return Detected(str(entry["class"]), entry.get("color"), float(entry["score"]), (x0, y0, x1, y1), mask)


def to_runs(mask: NDArray[np.bool_]) -> list[int]:
    """The lengths of a mask's runs, column by column, beginning with pixels outside."""
    import numpy as np

    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs: list[int] = np.diff([0, *changes, flat.size]).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def from_runs(runs: Sequence[int], size: Sequence[int]) -> NDArray[np.bool_]:
    """The mask, bool [height, width], of `to_runs`.

    Raises:
        ValueError: the runs do not add up to the size.
    """
    import numpy as np

    height, width = size
    if any(type(n) is not int or n < 0 for n in runs) or sum(runs) != height * width:
        raise ValueError("runs of another size")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape((height, width), order="F")
