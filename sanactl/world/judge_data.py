"""Pictures with the faults of a small image model, for a judge to learn from before there are sampled images.

A sampler draws shapes half-way between two, in two colours, faded, warped, merged, one too many or too few. Here the
same is done to rendered scenes on purpose. The label of such a picture comes from the detector, not from the scene that
was rendered.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sanactl.shapes.dataset import scene_and_prompt
from sanactl.shapes.geometry import GRID_REACH, GRID_SIZE, outline
from sanactl.shapes.prompts import Record
from sanactl.shapes.render import render
from sanactl.shapes.scene import Item, Scene
from sanactl.shapes.vocabulary import COLORS, SHAPES

__all__ = ["flawed_example"]

Array = NDArray[np.float32]

_COLOR_NAMES = tuple(COLORS)
# The probability that an item has a fault of its own, and the kinds.
ITEM_FAULT = 0.45
ITEM_FAULTS = ("morph", "morph", "twin", "two_colors", "fade", "stretch", "tint")
# The probability that the scene's content is changed, so that the prompt no longer fits.
EDIT = 0.4


def flawed_example(
    index: int, seed: int = 0, split: str = "train", size: int = 64
) -> tuple[NDArray[np.uint8], Record]:
    """A faulty picture made from example `index` of the training stream.

    Returns:
        uint8 [size, size, 3], and the prompt record that the picture was to show (and may not).
    """
    scene, record = scene_and_prompt(index, seed, split)
    rng = np.random.default_rng([seed, index, 0xF1A])
    if rng.random() < EDIT:
        scene = Scene(_edit(scene.items, rng), scene.background)
    if rng.random() < 0.15:
        image = render(scene, size).astype(np.float32)
    else:
        image = np.empty((size, size, 3), dtype=np.float32)
        image[:] = scene.background
        for item in scene.items:
            _draw(image, item, rng)
    if rng.random() < 0.6:
        image = _warp(image, rng)
    if rng.random() < 0.7:
        sigma = float(rng.uniform(0.2, 0.9))
        image = ndimage.gaussian_filter(image, (sigma, sigma, 0))
    if rng.random() < 0.15:
        _smear(image, rng)
    if rng.random() < 0.7:
        image = image + rng.normal(0, rng.uniform(0.5, 5), image.shape).astype(np.float32)
    return np.clip(image + np.float32(0.5), 0, 255).astype(np.uint8), record


def _edit(items: tuple[Item, ...], rng: np.random.Generator) -> tuple[Item, ...]:
    """One change of content: another shape or colour, one fewer, one more, two swapped."""
    kept = list(items)
    i = int(rng.integers(len(kept)))
    kind = rng.choice(["shape", "color", "drop", "add", "add", "swap"])
    if kind == "shape":
        kept[i] = replace(kept[i], shape=SHAPES[int(rng.integers(len(SHAPES)))])
    elif kind == "color":
        kept[i] = replace(kept[i], color=_COLOR_NAMES[int(rng.integers(len(_COLOR_NAMES)))])
    elif kind == "drop" and len(kept) > 1:
        del kept[i]
    elif kind == "add":
        shape = kept[i].shape if rng.random() < 0.7 else SHAPES[int(rng.integers(len(SHAPES)))]
        color = kept[i].color if rng.random() < 0.6 else _COLOR_NAMES[int(rng.integers(len(_COLOR_NAMES)))]
        # Not kept apart from the others: a sampler's surplus object often touches its neighbour.
        x, y, radius = rng.uniform(0.15, 0.85), rng.uniform(0.15, 0.85), rng.uniform(6, 10) / 64
        kept.append(Item(shape, color, float(x), float(y), float(radius)))
    elif kind == "swap" and len(kept) > 1:
        j = (i + 1) % len(kept)
        kept[i], kept[j] = (
            replace(kept[i], x=kept[j].x, y=kept[j].y),
            replace(kept[j], x=kept[i].x, y=kept[i].y),
        )
    return tuple(kept)


def _draw(image: Array, item: Item, rng: np.random.Generator) -> None:
    """Draws one item on the image, with a fault of its own at the probability `ITEM_FAULT`."""
    size = image.shape[0]
    fault = ITEM_FAULTS[int(rng.integers(len(ITEM_FAULTS)))] if rng.random() < ITEM_FAULT else ""
    distance = outline(item.shape).distance
    sx = sy = 1.0
    opacity = 1.0
    color: Array = np.asarray(COLORS[item.color], dtype=np.float32)
    if fault == "morph":
        other = outline(SHAPES[int(rng.integers(len(SHAPES)))]).distance
        distance = distance + (other - distance) * np.float32(rng.uniform(0.1, 0.9))
    elif fault == "stretch":
        sx, sy = (float(np.exp(v)) for v in rng.uniform(-0.3, 0.3, 2))
    elif fault == "fade":
        opacity = float(rng.uniform(0.3, 0.95))
    elif fault == "twin":
        # The same object once more, merged with the first, as a sampler draws two objects that are too near.
        angle, far = rng.uniform(0, 2 * np.pi), item.size * rng.uniform(0.5, 1.6)
        x, y = (
            float(np.clip(v, 0.1, 0.9)) for v in (item.x + far * np.cos(angle), item.y + far * np.sin(angle))
        )
        _lay(image, replace(item, x=x, y=y), distance, color)
    elif fault == "tint":
        other_color = np.asarray(COLORS[_COLOR_NAMES[int(rng.integers(len(_COLOR_NAMES)))]], dtype=np.float32)
        color = color + (other_color - color) * np.float32(rng.uniform(0.1, 0.9))
    paint = color
    if fault == "two_colors":
        second = np.asarray(COLORS[_COLOR_NAMES[int(rng.integers(len(_COLOR_NAMES)))]], dtype=np.float32)
        angle, offset, width = rng.uniform(0, 2 * np.pi), rng.uniform(-0.7, 0.7), rng.uniform(0.5, 6)
        axis = (np.arange(size, dtype=np.float32) + 0.5) / size
        along = (axis[None] - item.x) * np.cos(angle) + (axis[:, None] - item.y) * np.sin(angle)
        mix = 1 / (1 + np.exp(-np.clip((along - offset * item.size) * size / width, -30, 30)))
        paint = color + (second - color) * mix[..., None].astype(np.float32)
    _lay(image, item, distance, paint, sx, sy, opacity)


def _lay(
    image: Array,
    item: Item,
    distance: Array,
    paint: Array,
    sx: float = 1.0,
    sy: float = 1.0,
    opacity: float = 1.0,
) -> None:
    """Draws an outline from its distance table on the image: stretched by `sx`, `sy`, in a colour [3] or colours [H, W, 3]."""
    size = image.shape[0]
    # Pixel centres in the item's own units, looked up in its table (nearest: warp and blur follow).
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    scale = (GRID_SIZE - 1) / (2 * GRID_REACH)
    ux = ((axis - item.x) / (item.size * sx) + GRID_REACH) * scale + 0.5
    uy = ((axis - item.y) / (item.size * sy) + GRID_REACH) * scale + 0.5
    inside_x, inside_y = ((u >= 0) & (u < GRID_SIZE) for u in (ux, uy))
    share = np.zeros((size, size), dtype=np.float32)
    table = distance[np.ix_(uy[inside_y].astype(np.intp), ux[inside_x].astype(np.intp))]
    edge = np.float32(item.size * min(sx, sy) * size)
    share[np.ix_(inside_y, inside_x)] = np.clip(0.5 - table * edge, 0, 1) * opacity
    image += (paint - image) * share[..., None]


def _warp(image: Array, rng: np.random.Generator) -> Array:
    """A smooth displacement of a few pixels, which makes outlines uneven."""
    size = image.shape[0]
    cells = int(rng.integers(3, 9))
    amplitude = float(rng.uniform(0.2, 1.5)) * size / 64
    coarse = rng.normal(0, amplitude, (2, cells, cells)).astype(np.float32)
    dy, dx = (ndimage.zoom(c, size / cells, order=1, grid_mode=True, mode="nearest") for c in coarse)
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float32)
    where = np.stack([ys + dy, xs + dx])
    return np.stack(
        [ndimage.map_coordinates(image[..., c], where, order=1, mode="nearest") for c in range(3)], axis=-1
    )


def _smear(image: Array, rng: np.random.Generator) -> None:
    """A blurred spot of a random colour on the image."""
    size = image.shape[0]
    x, y, radius = rng.uniform(0, size), rng.uniform(0, size), rng.uniform(2, 8) * size / 64
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float32)
    share = np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * radius**2)) * rng.uniform(0.2, 1.0)
    color = np.asarray(COLORS[_COLOR_NAMES[int(rng.integers(len(_COLOR_NAMES)))]], dtype=np.float32)
    image += (color - image) * share[..., None].astype(np.float32)
