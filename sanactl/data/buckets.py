"""Aspect-ratio buckets: training sizes of different shapes, each with about as many pixels as the checkpoint's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sanactl.errors import UsageError

__all__ = ["LEFT_OUT", "bucket_sizes", "nearest_bucket", "nearest_buckets"]

Size = tuple[int, int]
LEFT_OUT = -1
# SANA's tables go from 1:4 to 4:1.
MAX_RATIO = 4.0
PUBLISHED = (256, 512, 1024, 2048, 4096)


def bucket_sizes(height: int, width: int, multiple: int) -> list[Size]:
    """The buckets of a resolution, by height.

    SANA's own table (as diffusers has it) for 256, 512, 1024, 2048 and 4096 pixels squared, if its sizes are whole
    numbers of latents; else sizes made by the same rule: sides that are multiples of `multiple`, ratios from 1:4 to
    4:1, about `height` x `width` pixels.

    Args:
        multiple: pixels of a latent's side, times the patch size.

    Raises:
        UsageError: the resolution is not a multiple of `multiple`.
    """
    if height % multiple or width % multiple:
        raise UsageError(
            f"--buckets needs sides that are multiples of {multiple} pixels, and the size is {height} x {width}"
        )
    published = _published(height) if height == width and height in PUBLISHED else []
    if published and all(h % multiple == 0 and w % multiple == 0 for h, w in published):
        return published
    area = height * width
    sizes = {(height, width)}
    for short in range(multiple, int(area**0.5) + 1, multiple):
        long = max(multiple, round(area / short / multiple) * multiple)
        if long <= MAX_RATIO * short:
            sizes |= {(short, long), (long, short)}
    return sorted(sizes)


def _published(side: int) -> list[Size]:
    from diffusers.pipelines.pixart_alpha import pipeline_pixart_alpha as alpha
    from diffusers.pipelines.sana import pipeline_sana as sana

    tables = {
        256: alpha.ASPECT_RATIO_256_BIN,
        512: sana.ASPECT_RATIO_512_BIN,
        1024: sana.ASPECT_RATIO_1024_BIN,
        2048: sana.ASPECT_RATIO_2048_BIN,
        4096: sana.ASPECT_RATIO_4096_BIN,
    }
    return sorted({(int(h), int(w)) for h, w in tables[side].values()})


def nearest_buckets(images: NDArray[np.int64], sizes: Sequence[Size]) -> NDArray[np.int64]:
    """The bucket whose ratio is nearest to each image's, on a logarithmic scale: tall and wide count alike.

    Args:
        images: [N, 2] heights and widths; 0 marks an image that cannot be read.
        sizes: the buckets.

    Returns:
        [N] numbers of buckets, `LEFT_OUT` for images that cannot be read.
    """
    ratios = np.log([h / w for h, w in sizes])
    readable = (images > 0).all(axis=1)
    found = np.full(len(images), LEFT_OUT, dtype=np.int64)
    wanted = np.log(images[readable, 0] / images[readable, 1])
    # Midpoints between neighbouring ratios: one search, where a table of all differences would need much memory.
    order = np.argsort(ratios, kind="stable")
    edges = (ratios[order][1:] + ratios[order][:-1]) / 2
    found[readable] = order[np.searchsorted(edges, wanted)]
    return found


def nearest_bucket(height: int, width: int, sizes: Sequence[Size]) -> Size:
    """The bucket of one image."""
    return sizes[int(nearest_buckets(np.array([[height, width]]), sizes)[0])]
