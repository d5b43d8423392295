"""What is in a picture: items on a plain background, and where they may stand.

Coordinates are fractions of the image's side (x to the right, y down): a scene can be drawn at any size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sanactl.shapes.geometry import outline
from sanactl.shapes.vocabulary import BACKGROUND, BACKGROUND_JITTER

# All in pixels of a 64 px image, divided by 64.
GAP = 3 / 64
MARGIN = 2 / 64
# Nominal radius in the same unit, smallest and largest, by the number of items: four of radius 10 still fit.
RADII: dict[int, tuple[float, float]] = {
    1: (9 / 64, 14 / 64),
    2: (8 / 64, 13 / 64),
    3: (7.5 / 64, 11 / 64),
    4: (7 / 64, 10 / 64),
}


@dataclass(frozen=True)
class Item:
    """One coloured shape. `x`, `y`: centre of its bounding box; `size`: nominal radius; all as fractions."""

    shape: str
    color: str
    x: float
    y: float
    size: float

    @property
    def reach(self) -> float:
        """Distance from the centre to the farthest point of the shape."""
        return self.size * outline(self.shape).reach

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Bounding box x0, y0, x1, y1 as fractions of the image's side."""
        o = outline(self.shape)
        w, h = self.size * o.half_width, self.size * o.half_height
        return self.x - w, self.y - h, self.x + w, self.y + h


@dataclass(frozen=True)
class Scene:
    """Items on a background of one colour (RGB, 0..255); no two items overlap."""

    items: tuple[Item, ...]
    background: tuple[int, int, int]


def random_background(rng: np.random.Generator) -> tuple[int, int, int]:
    """A mid grey with a little brightness jitter."""
    level = BACKGROUND + int(rng.integers(-BACKGROUND_JITTER, BACKGROUND_JITTER, endpoint=True))
    return level, level, level


def place(
    kinds: Sequence[tuple[str, str]],
    rng: np.random.Generator,
    accept: Callable[[Sequence[Item]], bool] | None = None,
) -> Scene:
    """A random scene of `kinds` (shape, colour), at least `GAP` apart and `MARGIN` from the edge.

    Args:
        kinds: one to four pairs of shape and colour.
        rng: the only source of randomness.
        accept: a further condition on the items, in the order of `kinds` (a relation, say).

    Rejection sampling: a placement is drawn anew until it fits, with the largest radius shrinking slowly, so
    that every condition which can be met is met in the end.
    """
    low, high = RADII[len(kinds)]
    for attempt in range(10_000):
        top = max(low, high - (high - low) * attempt / 200)
        items: list[Item] = []
        for (shape, color), u in zip(kinds, rng.random((len(kinds), 3)), strict=True):
            size = low + (top - low) * float(u[2])
            o = outline(shape)
            mx, my = MARGIN + size * o.half_width, MARGIN + size * o.half_height
            item = Item(shape, color, mx + (1 - 2 * mx) * float(u[0]), my + (1 - 2 * my) * float(u[1]), size)
            if any(np.hypot(item.x - p.x, item.y - p.y) < item.reach + p.reach + GAP for p in items):
                break
            items.append(item)
        if len(items) == len(kinds) and (accept is None or accept(items)):
            return Scene(tuple(items), random_background(rng))
    raise AssertionError(f"no placement found for {kinds}")
