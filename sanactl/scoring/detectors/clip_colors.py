"""Colours of objects by CLIP, zero-shot, as GenEval's official scorer tells them.

Source: GenEval `evaluation/evaluate_images.py` (`ImageCrops`, `color_classification`); CLIP_benchmark
`metrics/zeroshot_classification.py` (`zero_shot_classifier`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sanactl.prompts.geneval.vocabulary import COLORS
from sanactl.scoring.detectors.protocol import Detected

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image

__all__ = ["BACKGROUND", "TEMPLATES", "ClipColors"]

TEMPLATES = (
    "a photo of a {color} {name}",
    "a photo of a {color}-colored {name}",
    "a photo of a {color} object",
)
BACKGROUND = "#999"
AT_ONCE = 16  # crops


class ClipColors:
    """Names the colour whose texts are nearest to an object's crop.

    Args:
        source: a CLIP, a folder or a Hub id.
        device: torch's device. CLIP computes in float32, where the official scorer uses fp16 autocast on a GPU.

    Raises:
        InputError: there is no such CLIP.
    """

    def __init__(self, source: str, device: torch.device) -> None:
        from sanactl.scoring.clip_model import ClipModel

        self.clip = ClipModel(source, device)
        self._classifiers: dict[str, torch.Tensor] = {}

    def classify(self, image: NDArray[np.uint8], objects: Sequence[Detected], name: str) -> list[str]:
        """The colours of objects of the class `name` in an image; see `ColorClassifier.colors`."""
        crops = [crop(image, found) for found in objects]
        colors: list[str] = []
        for start in range(0, len(crops), AT_ONCE):
            likeness = self.clip.images(crops[start : start + AT_ONCE]) @ self.classifier(name)
            colors += [COLORS[number] for number in likeness.argmax(1).tolist()]
        return colors

    def classifier(self, name: str) -> torch.Tensor:
        """A unit vector for each colour, float32 [width, colours]: the mean over the templates."""
        if name not in self._classifiers:
            texts = [template.format(color=color, name=name) for color in COLORS for template in TEMPLATES]
            vectors = self.clip.texts(texts).unflatten(0, (len(COLORS), len(TEMPLATES))).mean(1)
            self._classifiers[name] = (vectors / vectors.norm(dim=-1, keepdim=True)).T
        return self._classifiers[name]


def crop(image: NDArray[np.uint8], found: Detected) -> Image:
    """The box of an object, with grey where its mask is not."""
    from PIL import Image

    picture = Image.fromarray(image)
    if found.mask is not None:
        blank = Image.new("RGB", picture.size, color=BACKGROUND)
        picture = Image.composite(picture, blank, Image.fromarray(found.mask))
    return picture.crop(found.box)
