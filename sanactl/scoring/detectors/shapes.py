"""The built-in world's detector behind the interface that all detectors have."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from sanactl.scoring.detectors.protocol import Detected
from sanactl.shapes.vocabulary import SHAPES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ShapesDetector", "detect_shapes"]


class ShapesDetector:
    """The built-in world's detector: a program without weights, exact on the renderer's pictures.

    Args:
        device, dtype: without effect; it computes on the CPU in float32.
    """

    digest = None
    classes = frozenset(SHAPES)
    # It computes one image after the other: a batch would only make a stream's first records later.
    batch_size = 1

    def __init__(self, *, device: str | None = None, dtype: str | None = None) -> None:
        from sanactl.shapes.detector import DETECTOR_VERSION

        self.label = DETECTOR_VERSION

    def detect(self, images: Sequence[NDArray[np.uint8]], classes: Collection[str]) -> list[list[Detected]]:
        """The objects of each image; see `Detector.detect`."""
        return [[d for d in detect_shapes(image) if d.name in classes] for image in images]


def detect_shapes(image: NDArray[np.uint8]) -> list[Detected]:
    """The objects of a picture of the built-in world, uint8 [height, width, 3] of at least 32 px a side.

    Raises:
        ValueError: the image is too small, too large, or no such array.
    """
    from sanactl.shapes.detector import detect

    return [Detected(d.shape, d.color, d.score, d.box, d.mask) for d in detect(image)]
