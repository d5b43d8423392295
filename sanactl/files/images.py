"""Images from untrusted files: limited in bytes and pixels, decoded fully, upright, in RGB."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sanactl.errors import InputError, SanactlError
from sanactl.files.regular import open_regular

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["MAX_BYTES", "MAX_PIXELS", "SUFFIXES", "image_size", "read_image", "write_png"]

# A 4096 x 4096 sample, SANA's largest, is 17 M pixels.
MAX_PIXELS = 64_000_000
MAX_BYTES = 256 * 2**20
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
# How the names of such files end, in small letters.
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# Pillow cuts their values off at 255 in place of scaling them.
UNSCALED = ("I", "F")
_ORIENTATION = 0x0112  # EXIF's tag
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width
# Chunks of a PNG that may hold an orientation; Pillow knows those behind the pixels only once it has decoded these.
_PNG_NOTES = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")


def read_image(source: Path | IO[bytes], *, name: str | None = None) -> NDArray[np.uint8]:
    """Decodes an image; of an animation the first frame.

    Args:
        source: a file, or its bytes.
        name: what errors call it; by default the file.

    Returns:
        uint8 [height, width, 3], RGB, turned as its EXIF orientation says; transparency is laid on white, 16-bit grey
        keeps its upper 8 bits.

    Raises:
        InputError: if the file is missing, is no regular file, no image, truncated, too large, or holds numbers of no
            known range.
    """
    import numpy as np

    with _opened(source, name) as (image, name):
        # Older versions of Pillow open 16-bit PNGs as I; as anything else I is 32 bits.
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
            pixels = _grey16(image)
        elif image.mode in UNSCALED:
            kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
            raise InputError(
                f"{name}: its pixels are {kind}, of no known range",
                hint="save it with 8 or 16 bits a channel",
            )
        else:
            pixels = np.asarray(_on_white(image))
        return _turned(pixels, _orientation(image))


def image_size(source: Path | IO[bytes]) -> tuple[int, int]:
    """(height, width) that `read_image` gives, from the header alone.

    Raises:
        InputError: there is no header of an image that it reads.
    """
    with _opened(source) as (image, _):
        # Pillow tells the size of a turned TIFF as it is turned.
        turned = image.format != "TIFF" and _orientation(image, decode=_has_late_notes(image)) in _SIDEWAYS
        return (image.width, image.height) if turned else (image.height, image.width)


@contextmanager
def _opened(source: Path | IO[bytes], name: str | None = None) -> Iterator[tuple[Image.Image, str]]:
    """An image whose header has been read, and its name for errors. Errors of the body name the image, too."""
    from PIL import Image, UnidentifiedImageError

    name = name or (str(source) if isinstance(source, Path) else "an embedded image")
    try:
        with _stream(source, name) as stream, warnings.catch_warnings():
            # What Pillow finds odd but can read is not for stderr.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(stream, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise InputError(_too_large(name, f"{image.width} x {image.height}"))
                yield image, name
    except UnidentifiedImageError:
        # Pillow's own line holds an address in memory, and the same image is to have the same line.
        raise InputError(f"{name}: not a readable image (none of {', '.join(FORMATS)})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(_too_large(name, "its")) from None
    except SanactlError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever damaged data makes them stumble over
        raise InputError(f"{name}: not a readable image ({_first_line(error)})") from error


def _too_large(name: str, size: str) -> str:
    return f"{name}: {size} pixels are more than {MAX_PIXELS:,}"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def _stream(source: Path | IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """The bytes of an image."""
    if not isinstance(source, Path):
        size = source.seek(0, io.SEEK_END)
        source.seek(0)
        _check_bytes(size, name)
        yield source
        return
    with open_regular(source, what="image") as stream:
        _check_bytes(os.fstat(stream.fileno()).st_size, name)
        yield stream


def _check_bytes(size: int, name: str) -> None:
    if size == 0:
        raise InputError(f"{name}: an empty file, no image")
    if size > MAX_BYTES:
        raise InputError(f"{name}: larger than {MAX_BYTES >> 20} MiB")


def _on_white(image: Image.Image) -> Image.Image:
    """An image in RGB, with transparent pixels on white."""
    from PIL import Image

    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        image.load()
        # Of the same mode `convert` would be a copy, 256 MB of the largest image.
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _grey16(image: Image.Image) -> NDArray[np.uint8]:
    """16-bit grey as uint8 [height, width, 3]."""
    import numpy as np

    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    if "transparency" in image.info:  # one value that is not to be seen
        grey[values == image.info["transparency"]] = 255
    return np.repeat(grey[..., None], 3, axis=2)


def _orientation(image: Image.Image, *, decode: bool = True) -> int:
    """EXIF's orientation, 1 to 8; 1 (upright) where there is none, or what stands there is damaged.

    Args:
        image: opened, and for all but its size read, which turns a TIFF and takes its orientation away.
        decode: whether Pillow may decode a PNG to find what stands behind its pixels.
    """
    from PIL import Image

    try:
        # A PNG's own method decodes it first, if it has found no EXIF before the pixels.
        exif = image.getexif() if decode else Image.Image.getexif(image)
        value = exif.get(_ORIENTATION, 1)
    except (
        Exception
    ):  # Pillow's reader raises whatever damaged EXIF makes it stumble over; many programs write such
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _has_late_notes(image: Image.Image) -> bool:
    """Whether a PNG has EXIF or text behind its pixels."""
    stream = getattr(image, "fp", None)
    if image.format != "PNG" or stream is None:
        return False
    place = stream.tell()
    try:
        stream.seek(8)
        pixels = False
        while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
            if pixels and head[4:] in _PNG_NOTES:
                return True
            pixels = pixels or head[4:] == b"IDAT"
            stream.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
        return False
    finally:
        stream.seek(place)


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """[H, W, 3] upright. As `PIL.ImageOps.exif_transpose`, which fails where it cannot write the EXIF data again."""
    import numpy as np

    if orientation in _SIDEWAYS:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def write_png(pixels: NDArray[np.uint8], path: Path, *, text: Mapping[str, str] | None = None) -> None:
    """Writes uint8 [height, width, 3] as PNG, whole or not at all; an image that is there is replaced.

    Args:
        text: keywords and texts that are stored before the pixels, as iTXt chunks.

    Raises:
        SanactlError: full disk, no permission.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from sanactl.files.atomic import atomic_path

    data = io.BytesIO()
    # Level 1 writes 3 times as fast as the default for 5 % more bytes.
    chunks = PngInfo()
    for keyword, value in (text or {}).items():
        chunks.add_itxt(keyword, value)
    Image.fromarray(pixels).save(data, format="PNG", compress_level=1, pnginfo=chunks)
    with atomic_path(path, force=True) as temporary:
        temporary.write_bytes(data.getvalue())
