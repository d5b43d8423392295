"""The shapes' outlines as signed distances, tabulated once and looked up by the renderer.

Coordinates are the shape's own: x to the right, y down, the centre of the bounding box at the origin and a
nominal radius of 1. Every shape is scaled to a similar visual weight rather than to the same box.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sanactl.shapes.vocabulary import SHAPES

Array = NDArray[np.float32]

# The table reaches from -GRID_REACH to GRID_REACH in GRID_SIZE samples. A step is 1/96 of a radius: with
# bilinear lookup the error at a radius of 14 px stays under 0.01 px, away from the corners.
GRID_REACH = 1.5
GRID_SIZE = 289


@dataclass(frozen=True)
class Outline:
    """A shape's signed distance (negative inside) on the grid, and what follows from it.

    Attributes:
        distance: float32 [GRID_SIZE, GRID_SIZE], row = y, in units of the nominal radius.
        half_width, half_height: of the bounding box.
        reach: distance of the farthest point from the centre of the box.
        area: in squared radii.
    """

    distance: Array
    half_width: float
    half_height: float
    reach: float
    area: float


def _polygon(points: NDArray[np.float64], x: Array, y: Array) -> Array:
    """Exact signed distance to a simple polygon `points` [N, 2] (even-odd rule for the sign)."""
    best = np.full(x.shape, np.inf, dtype=np.float64)
    inside = np.zeros(x.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(points, np.roll(points, -1, axis=0), strict=True):
        ex, ey = bx - ax, by - ay
        t = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
        best = np.minimum(best, (x - ax - t * ex) ** 2 + (y - ay - t * ey) ** 2)
        if ay != by:
            crosses = (ay > y) != (by > y)
            inside ^= crosses & (x < ex * (y - ay) / ey + ax)
    return np.where(inside, -np.sqrt(best), np.sqrt(best)).astype(np.float32)


def _circle(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - np.float32(0.92)


def _square(x: Array, y: Array) -> Array:
    h = 0.82
    return _polygon(np.array([(-h, -h), (h, -h), (h, h), (-h, h)]), x, y)


def _triangle(x: Array, y: Array) -> Array:
    return _polygon(np.array([(0.0, -1.0), (1.08, 0.87), (-1.08, 0.87)]), x, y)


def _star(x: Array, y: Array) -> Array:
    angles = -np.pi / 2 + np.arange(10) * np.pi / 5
    # An inner radius of 0.44 of the outer: slimmer tips vanish at 14 px, fatter stars read as pentagons.
    radii = np.where(np.arange(10) % 2 == 0, 1.2, 0.53)
    return _polygon(np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1), x, y)


def _heart(x: Array, y: Array) -> Array:
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    px = 16 * np.sin(t) ** 3
    py = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return _polygon(np.stack([px, py], axis=1) / 15.5, x, y)


def _cross(x: Array, y: Array) -> Array:
    a, b = 1.0, 0.33
    arm = [(-b, -b), (-b, -a), (b, -a)]
    # The upper arm, then it turned by a quarter, a half and three quarters.
    corners = arm + [(-v, u) for u, v in arm] + [(-u, -v) for u, v in arm] + [(v, -u) for u, v in arm]
    return _polygon(np.array(corners), x, y)


_OUTLINES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
}
assert tuple(_OUTLINES) == SHAPES


@cache
def outline(shape: str) -> Outline:
    """The outline of one of `SHAPES`, computed on first use (about 20 ms) and kept."""
    axis = np.linspace(-GRID_REACH, GRID_REACH, GRID_SIZE, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    distance = _OUTLINES[shape]
    inside = distance(x, y) < 0
    # Move the box's centre to the origin, so that an item's position is what GenEval measures.
    dx, dy = (0.5 * (c[inside].min() + c[inside].max()) for c in (x, y))
    table = np.ascontiguousarray(distance(x + dx, y + dy), dtype=np.float32)
    inside = table < 0
    return Outline(
        distance=table,
        half_width=float(np.abs(x[inside]).max()),
        half_height=float(np.abs(y[inside]).max()),
        reach=float(np.hypot(x[inside], y[inside]).max()),
        area=float(inside.mean() * (2 * GRID_REACH) ** 2),
    )
