"""A batch of images given to a detector, with errors that name the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError, SanactlError
from sanactl.scoring.detectors.protocol import ColorClassifier, Detected, Detector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["check_classes", "classifier_of", "detect_batch", "facts_of"]


def detect_batch(
    detector: Detector, images: Sequence[NDArray[np.uint8]], records: Sequence[Mapping[str, Any]]
) -> list[list[Detected]]:
    """The objects of each image, of all classes that the detector knows.

    Args:
        images: uint8 [height, width, 3], RGB.
        records: one for each image, for the errors.

    Raises:
        InputError: the detector cannot take an image; the message names it.
    """
    try:
        return detector.detect(images, detector.classes)
    except SanactlError:
        raise  # of the detector itself, whatever the image
    except ValueError as error:
        if len(images) == 1:
            raise InputError(f"{records[0].get('path')}: {error}") from None
    # One by one, the error can name the image.
    return [detect_batch(detector, images[i : i + 1], records[i : i + 1])[0] for i in range(len(images))]


def check_classes(detector: Detector, record: Mapping[str, Any]) -> None:
    """Raises InputError if a record asks for an object that the detector does not know: each verdict would be "no"."""
    clauses = [*record["include"], *(record.get("exclude") or ())]
    unknown = sorted({clause["class"] for clause in clauses} - detector.classes)
    if unknown:
        raise InputError(
            f"{record['path']}: the detector {detector.label} knows no {unknown[0]!r}",
            hint=f"it knows {', '.join(sorted(detector.classes)[:8])}; choose another detector",
        )


def classifier_of(
    detector: Detector, image: NDArray[np.uint8]
) -> Callable[[Sequence[Detected], str], list[str]] | None:
    """What tells the colours of an image's objects; None where detections carry their colours."""
    return partial(detector.colors, image) if isinstance(detector, ColorClassifier) else None


def facts_of(detector: Detector) -> dict[str, Any]:
    """What else the results of a detector depend on, for its scores: nothing where it has no `facts`."""
    return dict(getattr(detector, "facts", {}))
