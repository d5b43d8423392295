"""The interface of detectors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Box", "ColorClassifier", "Detected", "Detector"]

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Detected:
    """One object found in an image, by whatever detector.

    Attributes:
        name: its class, as the prompt records name it.
        color: one of `sanactl.prompts.geneval.vocabulary.COLORS`, or None where a `ColorClassifier` tells colours.
        score: confidence in [0, 1].
        box: x0, y0, x1, y1 in pixels, y pointing down.
        mask: bool [height, width], or None.
    """

    name: str
    color: str | None
    score: float
    box: Box
    mask: NDArray[np.bool_] | None = field(default=None, repr=False)


class Detector(Protocol):
    """Finds objects in images.

    A detector may have more: `facts`, fields for its scores of what else its results depend on (its detections are then
    kept in a file); `colors` (`ColorClassifier`); `probe` and `moved`, by which it is checked on a machine
    (`sanactl.scoring.detectors.check.Checked`).
    """

    @property
    def label(self) -> str:
        """Name and version, part of every score made with it ("shapes-1")."""

    @property
    def digest(self) -> str | None:
        """Of its weights ("sha256:..."); None for a detector without weights."""

    @property
    def classes(self) -> frozenset[str]:
        """The names that it can find; a prompt that asks for another cannot be scored with it."""

    @property
    def batch_size(self) -> int:
        """Images a call where the user does not choose."""

    def detect(self, images: Sequence[NDArray[np.uint8]], classes: Collection[str]) -> list[list[Detected]]:
        """The objects of each image, in any order; they do not depend on the other images.

        Args:
            images: uint8 [height, width, 3], RGB; sizes may differ.
            classes: the names to look for, some of `classes`. Objects of other classes are left out.

        Raises:
            ValueError: an image is one that it cannot take; the message says why.
        """


@runtime_checkable
class ColorClassifier(Protocol):
    """A detector that tells the colours of objects in a second step, as the official GenEval scorer does with CLIP."""

    def colors(self, image: NDArray[np.uint8], objects: Sequence[Detected], name: str) -> list[str]:
        """The colours of some objects of the class `name` in an image, called only where a prompt asks for a colour.

        Returns:
            One of `sanactl.prompts.geneval.vocabulary.COLORS` for each object.
        """
