"""Detections in a file, with masks and colours, so that other rules can score them without the model.

A line of JSON an image: `image`, the sha256 of its file; `by`, a digest of what the detections depend on; `path`; `size`,
[height, width]; `objects`, each with `class`, `score`, `box`, `color` where it was told, and `mask`, the counts of COCO's
uncompressed run-length code (pixels column by column; first those outside).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.files.content import json_digest
from sanactl.scoring.detectors.protocol import Detected, Detector
from sanactl.scoring.kept_lines import KeptLines

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["KeptDetections", "detections_line", "from_runs", "to_runs"]


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
        by = json_digest([detector.label, detector.digest, facts])[:32]
        self._lines = KeptLines(path, by, "detections")

    def get(self, image: Path) -> list[Detected] | None:
        """The detections kept for an image; None if there are none."""
        lines = self._lines.of(image)
        if not lines:
            return None
        try:
            size = tuple(lines[-1]["size"])
            return [_detected(entry, size) for entry in lines[-1]["objects"]]
        except (ValueError, KeyError, TypeError, IndexError):
            raise self._lines.damaged(image) from None

    def put(self, lines: Iterable[tuple[Path, dict[str, Any]]]) -> None:
        """Keeps the detections of images: (file, `detections_line`).

        Raises:
            InputError: the file cannot be written.
        """
        self._lines.put(lines)


def detections_line(size: Sequence[int], objects: Sequence[Detected]) -> dict[str, Any]:
    """The detections of an image of that height and width, as they are kept."""
    return {"size": [*size], "objects": [_entry(d) for d in objects]}


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
