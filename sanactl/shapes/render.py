"""Scenes to pixels: antialiased, deterministic, fast enough to feed a training run from one core."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sanactl.shapes.geometry import GRID_REACH, GRID_SIZE, outline
from sanactl.shapes.scene import Item, Scene
from sanactl.shapes.vocabulary import COLORS


def _lookup(
    first: int, last: int, centre: float, radius: float
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Grid index and fraction of the pixel centres first..last-1 along one axis."""
    unit = (np.arange(first, last, dtype=np.float32) + np.float32(0.5 - centre)) / np.float32(radius)
    position = (unit + np.float32(GRID_REACH)) * np.float32((GRID_SIZE - 1) / (2 * GRID_REACH))
    index = np.clip(position.astype(np.intp), 0, GRID_SIZE - 2)
    return index, (np.clip(position - index, 0, 1)).astype(np.float32)


def coverage(item: Item, size: int) -> tuple[slice, slice, NDArray[np.float32]]:
    """Where an item lies in a `size` px image: rows, columns and the share of each pixel that it covers.

    The share is the signed distance of the pixel's centre, clipped to half a pixel either side of the edge.
    """
    o = outline(item.shape)
    radius, cx, cy = item.size * size, item.x * size, item.y * size
    w, h = radius * o.half_width + 1, radius * o.half_height + 1
    x0, x1 = max(int(cx - w), 0), min(int(cx + w) + 1, size)
    y0, y1 = max(int(cy - h), 0), min(int(cy + h) + 1, size)
    ix, fx = _lookup(x0, x1, cx, radius)
    iy, fy = _lookup(y0, y1, cy, radius)
    rows = o.distance[iy] + (o.distance[iy + 1] - o.distance[iy]) * fy[:, None]
    distance = rows[:, ix] + (rows[:, ix + 1] - rows[:, ix]) * fx
    return slice(y0, y1), slice(x0, x1), np.clip(np.float32(0.5) - distance * np.float32(radius), 0, 1)


def render(scene: Scene, size: int = 64) -> NDArray[np.uint8]:
    """Draws a scene.

    Args:
        scene: what to draw; later items lie on top, though items of a valid scene do not overlap.
        size: the image's side in pixels.

    Returns:
        uint8 [size, size, 3], RGB.
    """
    image = np.empty((size, size, 3), dtype=np.float32)
    image[:] = scene.background
    for item in scene.items:
        rows, columns, share = coverage(item, size)
        patch = image[rows, columns]
        patch += (np.asarray(COLORS[item.color], dtype=np.float32) - patch) * share[..., None]
    return (image + np.float32(0.5)).astype(np.uint8)
