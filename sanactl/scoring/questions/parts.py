"""The four images of a 2 x 2 grid, as DPG-Bench's script takes them, and where there is padding between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sanactl.errors import InputError
from sanactl.scoring.questions.kept_answers import Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["crop", "grid_parts"]

MOST_PADDING = 32  # pixels


def grid_parts(height: int, width: int, resolution: int, *, padded: bool) -> list[Box]:
    """The parts of a grid, [x0, y0, x1, y1], row by row.

    Args:
        height, width: of the grid.
        resolution: of each image, in pixels a side.
        padded: whether there may be padding around and between the images, as torchvision's `make_grid` puts it (2 px,
            and so in SANA's grids). The official script knows none: its parts are shifted then.

    Raises:
        InputError: with `padded`, the grid is not of such a size.
    """
    space = 0
    if padded:
        space = (width - 2 * resolution) // 3
        if height != width or width != 2 * resolution + 3 * space or not 0 <= space <= MOST_PADDING:
            raise InputError(
                f"{width} x {height} px is no grid of 2 x 2 images of {resolution} px",
                hint=f"--resolution is the size of one image: {2 * resolution} px a side, with padding of 2 px"
                f" {2 * resolution + 6}",
            )
    starts = (space, 2 * space + resolution)
    return [(x, y, x + resolution, y + resolution) for y in starts for x in starts]


def crop(image: NDArray[np.uint8], part: Box | None) -> NDArray[np.uint8]:
    """A part of an image; black where it reaches over the edge, as Pillow's `crop` makes it."""
    import numpy as np

    if part is None:
        return image
    x0, y0, x1, y1 = part
    inside = image[y0:y1, x0:x1]
    if inside.shape[:2] == (y1 - y0, x1 - x0):
        return np.ascontiguousarray(inside)
    found = np.zeros((y1 - y0, x1 - x0, 3), dtype=np.uint8)
    found[: inside.shape[0], : inside.shape[1]] = inside
    return found
