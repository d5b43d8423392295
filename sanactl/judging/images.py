"""Images as judges are given them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sanactl.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["check_max_pixels", "picture"]


def check_max_pixels(max_pixels: int) -> int:
    """`max_pixels` if it is a limit that `picture` takes.

    Raises:
        UsageError: it is negative.
    """
    if max_pixels < 0:
        raise UsageError(f"max_pixels is {max_pixels}", hint="it takes a number of pixels, or 0 for no limit")
    return max_pixels


def picture(image: NDArray[np.uint8], max_pixels: int = 0) -> Image.Image:
    """An image for a judge's processor, made smaller where it has more than `max_pixels` pixels.

    Args:
        image: uint8 [height, width, 3], RGB.
        max_pixels: the most pixels (height x width), 0 for no limit. The ratio of the sides is kept.
    """
    from PIL import Image

    whole = Image.fromarray(image)
    if not max_pixels or whole.width * whole.height <= max_pixels:
        return whole
    scale = math.sqrt(max_pixels / (whole.width * whole.height))
    size = (max(1, int(whole.width * scale)), max(1, int(whole.height * scale)))
    return whole.resize(size, Image.Resampling.LANCZOS)
