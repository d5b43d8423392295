"""Images from files that nobody vouches for: bounded in bytes and pixels, decoded fully, in RGB."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from sanactl.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MAX_PIXELS", "read_image", "write_png"]

# A 4096 x 4096 sample, SANA's largest, is 17 M pixels.
MAX_PIXELS = 64_000_000
MAX_BYTES = 256 * 2**20
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")


def read_image(source: Path | io.BytesIO) -> NDArray[np.uint8]:
    """Decodes an image.

    Returns:
        uint8 [height, width, 3], RGB; transparency is laid on white.

    Raises:
        InputError: if the file is missing, is no image, is truncated, or is too large.
    """
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    name = str(source) if isinstance(source, Path) else "an embedded image"
    try:
        if isinstance(source, Path) and source.stat().st_size > MAX_BYTES:
            raise InputError(f"{name}: larger than {MAX_BYTES >> 20} MiB")
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{name}: {image.width} x {image.height} pixels is more than {MAX_PIXELS:,}")
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                rgba = image.convert("RGBA")
                return np.asarray(
                    Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
                )
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"{name}: no such image") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: not a readable image ({error})") from error


def write_png(pixels: NDArray[np.uint8], path: Path) -> None:
    """Writes uint8 [height, width, 3] as PNG, whole or not at all; an image that is there is replaced.

    Raises:
        SanactlError: full disk, no permission.
    """
    from PIL import Image

    from sanactl.io.atomic import atomic_path

    data = io.BytesIO()
    # Level 1 writes 3 times as fast as the default for 5 % more bytes.
    Image.fromarray(pixels).save(data, format="PNG", compress_level=1)
    with atomic_path(path, force=True) as temporary:
        temporary.write_bytes(data.getvalue())
