"""Images as a page holds them: reduced, encoded, inside the page's own text, as long as there is room."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sanactl.errors import InputError
from sanactl.files.images import read_image

__all__ = ["Picture", "Thumbnails"]

# Base64 characters of all thumbnails together; the page has to stay under 5 MB with its plots and tables.
BUDGET = 3_300_000
SMALL = 96  # px; an image of at most this size is embedded as it is, larger ones are reduced
THUMBNAIL, LARGE = 224, 448  # px; the first screen's images can be looked at closely
LARGE_BUDGET = 1_800_000  # of BUDGET, for the first screen's images


@dataclass(frozen=True)
class Picture:
    """An image with what is known of it.

    Attributes:
        source: a data URI; "" where there is none, for the reason that `fault` names.
        small: it has so few pixels that they are to be seen as such.
        name: of the image, for readers who do not see it.
        prompt: images of one prompt can be compared.
        of: what drew it.
        lines: (text, tone) below it; tones are "good", "bad", "strong" and "".
    """

    source: str
    fault: str
    small: bool
    name: str
    prompt: str
    of: str
    lines: Sequence[tuple[str, str]] = ()
    winner: bool = False
    kind: ClassVar[str] = "picture"


class Thumbnails:
    """Image files as data URIs, as long as the page has room for them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.room, self.large_room = folder, BUDGET, min(LARGE_BUDGET, BUDGET // 2)

    def embed(self, path: str, *, large: bool = False) -> tuple[str, bool, str]:
        """(data URI, whether the image is small and kept as it is, the reason where there is no image).

        Args:
            path: of the image, relative to the folder.
            large: in twice the size, while there is room.
        """
        try:
            uri, small = _data_uri(self.folder / path, LARGE if large and self.large_room > 0 else THUMBNAIL)
        except (InputError, OSError, ValueError):
            return "", False, "image not found or not readable"
        if len(uri) > self.room:
            return "", False, "left out: the page would grow past 5 MB"
        self.room -= len(uri)
        self.large_room -= len(uri) if large else 0
        return uri, small, ""


def _data_uri(path: Path, most: int) -> tuple[str, bool]:
    """(data URI, whether the image is so small that it was kept as it is); `most` pixels a side."""
    from PIL import Image

    image = Image.fromarray(read_image(path))
    small = max(image.size) <= SMALL
    buffer = io.BytesIO()
    if small:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.thumbnail((most, most), Image.Resampling.LANCZOS)
        image.save(buffer, "JPEG", quality=82, optimize=True)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", small
