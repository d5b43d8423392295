"""Colours as people tell them apart: CIE Lab, and the nearest name of the palette."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanactl.shapes.vocabulary import COLORS

# sRGB to XYZ (IEC 61966-2-1), each row divided by the D65 white point.
_TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], dtype=np.float32
) / np.array([[0.9505], [1.0], [1.089]], dtype=np.float32)


def to_lab(rgb: NDArray[Any]) -> NDArray[np.float32]:
    """sRGB [..., 3] in 0..255 to CIE Lab (D65): lightness 0..100, then the two colour axes."""
    c = np.asarray(rgb, dtype=np.float32) / 255
    linear = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    xyz = linear @ _TO_XYZ.T
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = (116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2]))
    return np.stack(lab, axis=-1).astype(np.float32)


# Pixels whose distances are held at once, 10 numbers each; more than a picture of 64 x 64 has.
_BLOCK = 65_536
_PALETTE_LAB = to_lab(np.array(list(COLORS.values())))


def color_distances(rgb: NDArray[Any]) -> NDArray[np.float32]:
    """CIE76 distance of every pixel [..., 3] to every colour of `COLORS`: [..., 10]."""
    lab = to_lab(rgb)
    out: NDArray[np.float32] = np.sqrt(((lab[..., None, :] - _PALETTE_LAB) ** 2).sum(axis=-1))
    return out


def nearest_colors(rgb: NDArray[Any]) -> NDArray[np.intp]:
    """The index in `COLORS` of each pixel's nearest colour: [N, 3] -> [N]."""
    out = np.empty(len(rgb), dtype=np.intp)
    for start in range(0, len(rgb), _BLOCK):
        out[start : start + _BLOCK] = color_distances(rgb[start : start + _BLOCK]).argmin(axis=-1)
    return out
