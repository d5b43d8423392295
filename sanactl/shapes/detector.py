"""Detects the objects of a picture of the built-in world: shapes, colours, boxes, scores.

It is exact on the renderer's pictures, and made for those of a small model, too: soft edges, noise, smears, touching
objects, objects of two colours. An object's mask is where its colour exceeds half of its contrast to the
background; at a lower threshold the blur around a pale star fills its notches and makes it a diamond.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sanactl.shapes.color import color_distances, nearest_colors
from sanactl.shapes.matching import match, sharpen
from sanactl.shapes.vocabulary import COLORS, SHAPES

# Scores carry it: raise it with every change that can alter a detection.
DETECTOR_VERSION = "shapes-1"

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]

# RGB distance to the background past which a pixel may belong to an object. The faintest colour, purple, is
# 122 away, half of which decides in the end; noise of sigma 8/255 reaches 40 once in 10^5 pixels.
FOREGROUND = 40.0
# Smaller pieces are specks; px of a 64 px image, less in a smaller one but never under 6.
MIN_AREA = 12.0
# A pixel is core where it has this share of the strongest contrast nearby: the antialiased rim is not.
CORE = 0.75
# A second colour with less than this share of a piece's core is no object.
MINOR_COLOR = 0.12
# Pieces looked at, largest first; a scene has at most four.
MAX_PIECES = 24
# A picture's smallest side, and its most pixels: those of the built-in world have 64 x 64, and 1024 x 1024 take 0.2 GB and some seconds.
MIN_SIDE, MAX_PIXELS = 32, 1024 * 1024

# The score is a product of four terms. Measured on 64 px pictures: clean objects fit their templates with
# 0.90 and more; warped by 0.5 px RMS 0.85 to 0.96, by 1 px 0.77 to 0.93; stretched by a half 0.68 to 0.78;
# random blobs, halves and overlaps have a median of 0.6 to 0.75.
FIT_MIDDLE, FIT_SLOPE = 0.79, 0.025
# A clean object's fit is 0.10 and more above that of the second shape; less than 0.05 is half-way between two shapes.
CLEAR_LEAD = 0.05
# Share of an object's pixels that have its colour's name, where the score is zero and where it is whole.
PURITY_NONE, PURITY_WHOLE = 0.5, 0.9
# Lab distance to the palette's colour at which the score halves; half-way between two names is 25 or more.
COLOR_MIDDLE, COLOR_SLOPE = 32.0, 4.0
# Share of the picture that is background, below which scores fall with it: four items leave 0.75, noise 0.05.
PLAIN = 0.4

_NAMES = tuple(COLORS)
_EIGHT = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True, eq=False)
class Detection:
    """One object: `score` in [0, 1], `box` x0, y0, x1, y1 in pixels (ends exclusive), `mask` bool [H, W]."""

    shape: str
    color: str
    score: float
    box: Box
    mask: Mask


def detections_to_dicts(detections: Iterable[Detection]) -> list[dict[str, Any]]:
    """Detections without their masks, ready for JSON: `class`, `color`, `score`, `box`."""
    return [
        {"class": d.shape, "color": d.color, "score": round(d.score, 4), "box": [round(v, 2) for v in d.box]}
        for d in detections
    ]


def detect(image: NDArray[np.uint8]) -> list[Detection]:
    """Finds the objects of a picture.

    Args:
        image: uint8 [H, W, 3], RGB, at least 32 px a side, at most 1024 x 1024 pixels.

    Returns:
        The detections, the highest score first. A clean object has at least 0.95, a blob that fits no shape
        less than 0.5; GenEval's rules take an object from 0.3 on, for counting from 0.9 on.

    Raises:
        ValueError: for any other type or shape of array.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"detect needs uint8 [H, W, 3]; got {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE or height * width > MAX_PIXELS:
        raise ValueError(
            f"{width} x {height} pixels; the built-in world's detector takes {MIN_SIDE} a side to 1024 x 1024 in all"
        )
    pixels = image.astype(np.float32)
    offset = pixels - _background(pixels)
    distance = np.sqrt((offset**2).sum(axis=-1))
    foreground = distance > FOREGROUND
    core = foreground & (distance >= CORE * ndimage.maximum_filter(distance, size=5))
    names = np.zeros((height, width), dtype=np.intp)
    names[foreground] = nearest_colors(image[foreground])

    pieces, _ = ndimage.label(foreground, _EIGHT)
    areas = np.bincount(pieces.ravel())
    areas[0] = 0
    minimum = max(6.0, MIN_AREA * (min(height, width) / 64) ** 2)
    plain = min(1.0, float(1 - foreground.mean()) / PLAIN)
    found: list[Detection] = []
    for piece in np.argsort(-areas, kind="stable")[:MAX_PIECES]:
        if areas[piece] < minimum:
            break
        window = _window(pieces == piece)
        inside = pieces[window] == piece
        for share in _split_by_color(offset[window], inside, core[window] & inside, names[window]):
            for mask in _parts(share >= 0.5, minimum):
                found += _read(pixels[window], share, mask, window, (height, width), minimum)
    return sorted((replace(d, score=d.score * plain) for d in found), key=lambda d: -d.score)


def _window(mask: Mask) -> tuple[slice, slice]:
    """The rows and columns that a mask lies in. `find_objects` makes slices for all pieces, a million in noise."""
    (rows,), (columns,) = np.nonzero(mask.any(axis=1)), np.nonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _background(image: Array) -> Array:
    """The background's colour [3]: the median of a frame of 2 px, then of all pixels within 24 of it."""
    rows = (image[:2], image[-2:], image[2:-2, :2], image[2:-2, -2:])
    first = np.median(np.concatenate([r.reshape(-1, 3) for r in rows]), axis=0)
    alike = image[np.abs(image - first).max(axis=-1) < 24]
    return np.asarray(np.median(alike, axis=0) if len(alike) else first, dtype=np.float32)


def _split_by_color(offset: Array, piece: Mask, core: Mask, names: NDArray[np.intp]) -> Iterator[Array]:
    """Splits one connected piece by colour.

    Args:
        offset: [h, w, 3], the pixels less the background.
        piece, core: bool [h, w], the piece and its pixels off the rim.
        names: [h, w], index of each pixel's nearest colour.

    Yields:
        float32 [h, w] for each colour with enough of the core: the share in [0, 1] that its object has in
        each pixel, zero where another object is nearer.
    """
    counts = np.bincount(names[core], minlength=len(_NAMES))
    kept = np.flatnonzero(counts >= max(6.0, MINOR_COLOR * counts.sum()))
    if len(kept) < 2:
        kept = np.array([counts.argmax()])
        owner = np.full(piece.shape, kept[0])
    else:
        # A rim's mixture can have any name: a pixel goes to the nearest core pixel of a colour that is kept.
        seeds = core & np.isin(names, kept)
        ys, xs = ndimage.distance_transform_edt(~seeds, return_distances=False, return_indices=True)
        owner = names[ys, xs]
    for color in kept:
        mine = piece & (owner == color)
        inner = mine & core & (names == color)
        contrast = np.median(offset[inner if inner.any() else mine], axis=0)
        share = offset @ contrast / max(float(contrast @ contrast), 1e-6)
        yield np.where(mine, np.clip(share, 0, 1), 0).astype(np.float32)


def _parts(mask: Mask, minimum: float) -> list[Mask]:
    """The connected parts of a mask that have at least `minimum` pixels."""
    labels, n = ndimage.label(mask, _EIGHT)
    if n == 1:
        return [mask] if mask.sum() >= minimum else []
    areas = np.bincount(labels.ravel(), minlength=n + 1)
    return [labels == part for part in range(1, n + 1) if areas[part] >= minimum]


def _read(
    image: Array, share: Array, mask: Mask, window: tuple[slice, slice], size: tuple[int, int], minimum: float
) -> list[Detection]:
    """The object of a mask; or several, where the mask fits no shape, and its parts between narrow places do."""
    whole = _read_one(image, share, mask, window, size)
    if whole.score >= 0.5:
        return [whole]
    for depth in (1, 2, 3):
        seeds = _parts(ndimage.binary_erosion(mask, iterations=depth), minimum / 2)
        if len(seeds) > 1:
            marks = np.zeros(mask.shape, dtype=np.intp)
            for i, seed in enumerate(seeds):
                marks[seed] = i + 1
            ys, xs = ndimage.distance_transform_edt(marks == 0, return_distances=False, return_indices=True)
            owner = marks[ys, xs]
            cut = [
                _read_one(image, np.where(owner == i + 1, share, 0), mask & (owner == i + 1), window, size)
                for i in range(len(seeds))
            ]
            if min(d.score for d in cut) > max(0.5, whole.score):
                return cut
    return [whole]


def _read_one(
    image: Array, share: Array, mask: Mask, window: tuple[slice, slice], size: tuple[int, int]
) -> Detection:
    """Names one object from its share of each pixel and its mask, both within a window of the picture."""
    near = ndimage.binary_dilation(mask, _EIGHT)
    soft = np.where(near, share, 0).astype(np.float32)
    fits = match(sharpen(soft))
    order = np.argsort(-fits)
    fit, lead = float(fits[order[0]]), float(fits[order[0]] - fits[order[1]])

    inner = ndimage.binary_erosion(mask)
    if inner.sum() < 6:
        inner = mask
    color_gaps = color_distances(np.median(image[inner], axis=0))
    color = int(color_gaps.argmin())
    purity = float((nearest_colors(image[inner]) == color).mean())

    score = (
        _logistic((fit - max(0.0, CLEAR_LEAD - lead) - FIT_MIDDLE) / FIT_SLOPE)
        * float(np.clip((purity - PURITY_NONE) / (PURITY_WHOLE - PURITY_NONE), 0, 1))
        * _logistic((COLOR_MIDDLE - float(color_gaps[color])) / COLOR_SLOPE)
    )
    full = np.zeros(size, dtype=bool)
    full[window] = mask
    x0, x1 = _extent(soft.max(axis=0), window[1].start)
    y0, y1 = _extent(soft.max(axis=1), window[0].start)
    return Detection(SHAPES[order[0]], _NAMES[color], score, (x0, y0, x1, y1), full)


def _logistic(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def _extent(profile: Array, start: int) -> tuple[float, float]:
    """Both ends of an object along one axis, to a fraction of a pixel.

    `profile` is the largest share in each column (or row): the outermost column of at least 0.2 counts with
    its share, which is exact for an upright edge and gives back most of what blur takes off a tip.
    """
    covered = np.flatnonzero(profile >= 0.2)
    first, last = int(covered[0]), int(covered[-1])
    return start + first + 1 - float(profile[first]), start + last + float(profile[last])
