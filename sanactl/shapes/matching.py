"""Naming the shape of a mask: soft overlap with rendered templates of the same area.

A mask is moved to its centroid and scaled by the root of its area, which takes out place, sub-pixel offset
and size; what is left is compared with templates that went the same way at a similar size in pixels, since a
star of 14 pixels looks different from one of 28.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sanactl.shapes.geometry import outline
from sanactl.shapes.render import coverage
from sanactl.shapes.scene import Item
from sanactl.shapes.vocabulary import SHAPES

Array = NDArray[np.float32]

# The normalised window: CELLS x CELLS samples over +-SPAN roots of the area. The farthest tip, a triangle's
# top, is 0.94 away from its centroid.
CELLS = 32
SPAN = 1.05
# Nominal radii of the templates in pixels, and the softening of their edges (Gaussian sigma, px): samples of
# a small model are a little blurred, which rounds tips and corners.
TEMPLATE_RADII = (3.5, 4.25, 5.0, 6.0, 7.0, 8.0, 9.5, 11.0, 13.0, 16.0)
TEMPLATE_BLURS = (0.0, 0.9)
# Sub-pixel offsets averaged into one template.
_OFFSETS = ((0.0, 0.0), (0.5, 0.25), (0.25, 0.5), (0.75, 0.75))


def sharpen(share: Array) -> Array:
    """Steepens a mask's edge about one half, so that blur and a low contrast inside cost little."""
    return np.clip(2 * share - np.float32(0.5), 0, 1)


def normalise(mask: Array) -> Array:
    """A soft mask [h, w] in [0, 1] -> [CELLS * CELLS], centred on its centroid and of unit area."""
    h, w = mask.shape
    area = float(mask.sum())
    columns, rows = mask.sum(axis=0), mask.sum(axis=1)
    cx = float(columns @ np.arange(w, dtype=np.float32)) / area
    cy = float(rows @ np.arange(h, dtype=np.float32)) / area
    # Samples past the crop read the zero frame.
    framed = np.zeros((h + 2, w + 2), dtype=np.float32)
    framed[1:-1, 1:-1] = mask
    steps = np.linspace(-SPAN, SPAN, CELLS, dtype=np.float32) * np.float32(np.sqrt(area))
    x = np.clip(steps + np.float32(cx + 1), 0, w + 0.999)
    y = np.clip(steps + np.float32(cy + 1), 0, h + 0.999)
    ix, iy = x.astype(np.intp), y.astype(np.intp)
    upper = framed[iy] + (framed[iy + 1] - framed[iy]) * (y - iy)[:, None]
    out: Array = upper[:, ix] + (upper[:, ix + 1] - upper[:, ix]) * (x - ix)
    return out.reshape(-1)


def _blur(image: Array, sigma: float) -> Array:
    return gaussian_filter(image, sigma) if sigma > 0 else image


@dataclass(frozen=True)
class _Templates:
    values: Array  # [shapes, radii, blurs, CELLS * CELLS]
    radii: Array  # [shapes, radii]: root of the area in pixels, what a mask is matched by


@cache
def _templates() -> _Templates:
    values = np.zeros(
        (len(SHAPES), len(TEMPLATE_RADII), len(TEMPLATE_BLURS), CELLS * CELLS), dtype=np.float32
    )
    for s, shape in enumerate(SHAPES):
        for r, radius in enumerate(TEMPLATE_RADII):
            side = int(np.ceil(2 * radius * outline(shape).reach)) + 10
            for b, sigma in enumerate(TEMPLATE_BLURS):
                for dx, dy in _OFFSETS:
                    canvas = np.zeros((side, side), dtype=np.float32)
                    item = Item(shape, "black", 0.5 + dx / side, 0.5 + dy / side, radius / side)
                    rows, columns, share = coverage(item, side)
                    canvas[rows, columns] = share
                    values[s, r, b] += normalise(sharpen(_blur(canvas, sigma))) / len(_OFFSETS)
    areas = np.array([outline(s).area for s in SHAPES], dtype=np.float32)
    return _Templates(values, np.sqrt(areas)[:, None] * np.asarray(TEMPLATE_RADII, dtype=np.float32))


def match(mask: Array) -> Array:
    """How well each shape fits a mask.

    Args:
        mask: float32 [h, w] in [0, 1], the (sharpened) share of each pixel that belongs to the object.

    Returns:
        float32 [len(SHAPES)]: the best soft intersection over union with the shape's templates of the two
        nearest sizes and all blurs.
    """
    templates = _templates()
    candidate = normalise(mask)
    nearest = np.argsort(np.abs(np.log(templates.radii / np.sqrt(mask.sum()))), axis=1)[:, :2]
    chosen = templates.values[np.arange(len(SHAPES))[:, None], nearest].reshape(
        len(SHAPES), -1, CELLS * CELLS
    )
    shared = np.minimum(chosen, candidate).sum(axis=-1)
    union = chosen.sum(axis=-1) + candidate.sum() - shared
    best: Array = (shared / union).max(axis=1)
    return best
