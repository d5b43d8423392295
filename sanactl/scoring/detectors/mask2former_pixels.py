"""From images to Mask2Former's input, and from its output to objects, as mmdet does both.

transformers' own processor squashes images to a square of 384 px, and its post-processing gives one class a query and
no score of the mask: the numbers would not be GenEval's.

Source: mmdet 2.25 `configs/_base_/datasets/coco_instance.py` (test pipeline), `models/seg_heads/panoptic_fusion_heads/
maskformer_fusion_head.py` (`instance_postprocess`, `simple_test`), `core/mask/utils.py` (`mask2bbox`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

__all__ = ["OFFICIAL_FIT", "Fit", "Found", "Sizes", "objects", "prepare"]

DIVISOR = 32
PAD = 128.0
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
MOST = 100  # objects an image
# Queries whose masks are in memory at once in the size of the image.
AT_ONCE = 8


@dataclass(frozen=True)
class Fit:
    """What an image is fitted into with its ratio kept: px of its longer and of its shorter side."""

    long: int
    short: int


OFFICIAL_FIT = Fit(1333, 800)


@dataclass(frozen=True)
class Sizes:
    """Heights and widths of an image in pixels: its own, as it was fitted, and with padding."""

    original: tuple[int, int]
    fitted: tuple[int, int]
    padded: tuple[int, int]

    @classmethod
    def of(cls, height: int, width: int, fit: Fit = OFFICIAL_FIT) -> Sizes:
        scale = min(fit.long / max(height, width), fit.short / min(height, width))
        fitted = int(height * scale + 0.5), int(width * scale + 0.5)
        padded = tuple(-(-side // DIVISOR) * DIVISOR for side in fitted)
        return cls((height, width), fitted, (padded[0], padded[1]))


@dataclass(frozen=True)
class Found:
    """An object: class index, score, box (x0, y0, x1, y1 in pixels) and mask, bool [height, width] on the CPU."""

    label: int
    score: float
    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_]


def prepare(
    image: NDArray[np.uint8], device: torch.device | str = "cpu", fit: Fit = OFFICIAL_FIT
) -> tuple[torch.Tensor, Sizes]:
    """The model's input for one image.

    Bilinear to fit 1333 x 800 px (or another size) with its ratio kept, without antialiasing and rounded to whole
    numbers, as OpenCV resizes; padded at the right and the bottom with 128; normalised.

    Args:
        image: uint8 [height, width, 3], RGB.
        device: where the result lies.
        fit: what it is fitted into.

    Returns:
        float32 [3, padded height, padded width], and the sizes.
    """
    sizes = Sizes.of(image.shape[0], image.shape[1], fit)
    pixels = torch.from_numpy(np.array(image)).to(device).permute(2, 0, 1)[None].to(torch.float32)
    if sizes.fitted != sizes.original:
        pixels = F.interpolate(pixels, size=sizes.fitted, mode="bilinear", align_corners=False).round()
    bottom, right = (whole - part for whole, part in zip(sizes.padded, sizes.fitted, strict=True))
    pixels = F.pad(pixels, (0, right, 0, bottom), value=PAD)[0]
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (MEAN, STD))
    return (pixels - mean) / std, sizes


def objects(
    classes: torch.Tensor, masks: torch.Tensor, sizes: Sizes, *, least: float = 0.0
) -> Iterator[Found]:
    """The objects of one image.

    The 100 best of all pairs of a query and a class; one query may give two. An object's score is its class's
    probability times the mean of the mask's probabilities where the mask is. As that mean is at most 1, pairs that
    cannot score more than `least` are left out before their masks are enlarged.

    Args:
        classes: logits [queries, classes + 1], the last that of no object.
        masks: logits [queries, height, width] of any size, for the padded image.
        least: objects with no higher score may be missing.

    Yields:
        objects in the order of queries.
    """
    scores = classes.float().softmax(-1)[:, :-1]
    count = scores.shape[1]
    best, places = scores.flatten().topk(min(MOST, scores.numel()), sorted=False)
    places, best = places[best > least], best[best > least]
    if not len(places):
        return
    queries = places // count
    for part in queries.unique().split(AT_ONCE):
        large = F.interpolate(
            masks[None, part].float(), size=sizes.padded, mode="bilinear", align_corners=False
        )
        large = large[..., : sizes.fitted[0], : sizes.fitted[1]]
        large = F.interpolate(large, size=sizes.original, mode="bilinear", align_corners=False)[0]
        for query, logits in zip(part.tolist(), large, strict=True):
            inside = logits > 0
            sure = (logits.sigmoid() * inside).sum() / (inside.sum() + 1e-6)
            box = _box(inside)
            mask = inside.cpu().numpy()
            for place in (queries == query).nonzero()[:, 0].tolist():
                yield Found(int(places[place] % count), float(best[place] * sure), box, mask)


def _box(mask: torch.Tensor) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 around a mask, the last two past its last pixel; zeros around an empty one."""
    rows, columns = (mask.any(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
    if not rows:
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
