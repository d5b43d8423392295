"""Images from files that nobody vouches for: bounded in bytes and pixels, decoded fully, in RGB."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from sanactl.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["MAX_PIXELS", "read_image", "write_png"]

# A 4096 x 4096 sample, SANA's largest, is 17 M pixels.
MAX_PIXELS = 64_000_000
MAX_BYTES = 256 * 2**20
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
# Pillow cuts their values off at 255 in place of scaling them.
UNSCALED = ("I", "F")


def read_image(source: Path | io.BytesIO) -> NDArray[np.uint8]:
    """Decodes an image.

    Returns:
        uint8 [height, width, 3], RGB; transparency is laid on white, 16-bit grey keeps its upper 8 bits.

    Raises:
        InputError: if the file is missing, is no image, is truncated, is too large, or holds numbers of no known range.
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
            # Older versions of Pillow open 16-bit PNGs as I; as anything else I is 32 bits.
            if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
                return _grey16(image)
            if image.mode in UNSCALED:
                kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
                raise InputError(
                    f"{name}: its pixels are {kind}, of no known range",
                    hint="save it with 8 or 16 bits a channel",
                )
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                rgba = image.convert("RGBA")
                return np.asarray(
                    Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
                )
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"{name}: no such image") from None
    except UnidentifiedImageError:
        # Pillow's own line holds an address in memory, and the same image is to have the same line.
        raise InputError(f"{name}: not a readable image (none of {', '.join(FORMATS)})") from None
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: not a readable image ({error})") from error


def _grey16(image: Image.Image) -> NDArray[np.uint8]:
    """16-bit grey as uint8 [height, width, 3]."""
    import numpy as np

    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    if "transparency" in image.info:  # one value that is not to be seen
        grey[values == image.info["transparency"]] = 255
    return np.repeat(grey[..., None], 3, axis=2)


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
