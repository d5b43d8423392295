"""Reading images from untrusted files, with limits on bytes and pixels; writing PNGs."""

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

__all__ = [
    "MAX_BYTES", "MAX_PIXELS", "SUFFIXES", "image_bytes", "image_size", "image_suffix", "png_bytes", "read_image",
    "write_png",
]  # fmt: skip

# A 4096 x 4096 sample, SANA's largest, is 17 M pixels.
MAX_PIXELS = 64_000_000
MAX_BYTES = 256 * 2**20
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
# The suffixes of such files, in lower case.
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# Pillow clips their values at 255 instead of scaling them.
UNSCALED = ("I", "F")
_ORIENTATION = 0x0112  # EXIF's tag
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width
# Chunks of a PNG that may hold an orientation; those after the pixels are known only when the pixels are decoded.
_PNG_NOTES = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")


def read_image(source: Path | IO[bytes], *, name: str | None = None) -> NDArray[np.uint8]:
    """Decode an image, or the first frame of an animation.

    Args:
        source: a file, or its bytes.
        name: what errors call it; by default the file.

    Returns:
        uint8 [height, width, 3], RGB, rotated as its EXIF orientation says. Transparent pixels are blended with white;
        16-bit grey keeps its upper 8 bits.

    Raises:
        InputError: the file is missing, not a regular file, not an image, truncated, too large, or its pixels are numbers
            of an unknown range.
    """
    import numpy as np

    with _opened(source, name) as (image, name):
        # Older versions of Pillow open 16-bit PNGs as I; as anything else I is 32 bits.
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
            pixels = _grey16(image)
        elif image.mode in UNSCALED:
            kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
            raise InputError(
                f"{name}: its pixels are {kind}, of an unknown range",
                hint="save it with 8 or 16 bits a channel",
            )
        else:
            pixels = np.asarray(_on_white(image))
        return _turned(pixels, _orientation(image))


def image_bytes(path: Path) -> bytes:
    """The bytes of an image's file, which `read_image` takes as a stream; they are not decoded here.

    Raises:
        InputError: the file is missing, empty, too large or not a regular file.
    """
    try:
        with _stream(path, str(path)) as stream:
            return stream.read()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def image_size(source: Path | IO[bytes]) -> tuple[int, int]:
    """(height, width) that `read_image` gives, from the header alone.

    Raises:
        InputError: there is no header of an image that it reads.
    """
    with _opened(source) as (image, _):
        # Pillow gives a rotated TIFF's size after the rotation.
        turned = image.format != "TIFF" and _orientation(image, decode=_has_late_notes(image)) in _SIDEWAYS
        return (image.width, image.height) if turned else (image.height, image.width)


def image_suffix(source: Path | IO[bytes]) -> str:
    """The suffix that an image's content has (".png", ".jpg"), whatever its file is called.

    Raises:
        InputError: there is no header of an image that `read_image` reads.
    """
    with _opened(source) as (image, _):
        return {"JPEG": ".jpg", "TIFF": ".tif"}.get(image.format or "", f".{(image.format or '').lower()}")


@contextmanager
def _opened(source: Path | IO[bytes], name: str | None = None) -> Iterator[tuple[Image.Image, str]]:
    """An image whose header has been read, and its name for errors. Errors of the body also name the image."""
    from PIL import Image, UnidentifiedImageError

    name = name or (str(source) if isinstance(source, Path) else "an embedded image")
    try:
        with _stream(source, name) as stream, warnings.catch_warnings():
            # Pillow's warnings about images that it can read are not shown.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(stream, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise InputError(_too_large(name, f"{image.width} x {image.height}"))
                yield image, name
    except UnidentifiedImageError:
        # Pillow's own message contains a memory address; the same image must give the same message.
        raise InputError(f"{name}: not a readable image (none of {', '.join(FORMATS)})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(_too_large(name, "its")) from None
    except SanactlError:
        raise
    except Exception as error:  # Pillow's decoders raise all kinds of errors on damaged data
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
        raise InputError(f"{name}: an empty file, not an image")
    if size > MAX_BYTES:
        raise InputError(f"{name}: larger than {MAX_BYTES >> 20} MiB")


def _on_white(image: Image.Image) -> Image.Image:
    """An image in RGB, with transparent pixels on white."""
    from PIL import Image

    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        image.load()
        # With the same mode, `convert` would make a copy: 256 MB for the largest image.
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _grey16(image: Image.Image) -> NDArray[np.uint8]:
    """16-bit grey as uint8 [height, width, 3]."""
    import numpy as np

    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    if "transparency" in image.info:  # one grey value is marked as transparent
        grey[values == image.info["transparency"]] = 255
    return np.repeat(grey[..., None], 3, axis=2)


def _orientation(image: Image.Image, *, decode: bool = True) -> int:
    """EXIF's orientation, 1 to 8; 1 (upright) if there is none or the EXIF data is damaged.

    Args:
        image: opened; decoded, unless only its size is needed. Decoding rotates a TIFF and removes its orientation.
        decode: whether Pillow may decode a PNG to find the chunks after its pixels.
    """
    from PIL import Image

    try:
        # A PNG's own method decodes the image first if there is no EXIF before the pixels.
        exif = image.getexif() if decode else Image.Image.getexif(image)
        value = exif.get(_ORIENTATION, 1)
    except (
        Exception
    ):  # Pillow's reader raises all kinds of errors on damaged EXIF data, which many programs write
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _has_late_notes(image: Image.Image) -> bool:
    """Whether a PNG has EXIF or text after its pixels."""
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
    """[H, W, 3] upright, as by `PIL.ImageOps.exif_transpose`; that one fails if it cannot rewrite the EXIF data."""
    import numpy as np

    if orientation in _SIDEWAYS:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def write_png(pixels: NDArray[np.uint8], path: Path, *, text: Mapping[str, str] | None = None) -> None:
    """Write uint8 [height, width, 3] as PNG, whole or not at all; an existing image is replaced.

    Args:
        text: see `png_bytes`.

    Raises:
        SanactlError: the disk is full, or there is no permission.
    """
    from sanactl.files.atomic import atomic_path

    data = png_bytes(pixels, text=text)
    with atomic_path(path, force=True) as temporary:
        temporary.write_bytes(data)


def png_bytes(pixels: NDArray[np.uint8], *, text: Mapping[str, str] | None = None) -> bytes:
    """uint8 [height, width, 3] as the bytes of a PNG.

    Args:
        text: keywords and texts that are stored before the pixels, as iTXt chunks.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    data = io.BytesIO()
    # Level 1 is 3 times as fast as the default and gives 5 % more bytes.
    chunks = PngInfo()
    for keyword, value in (text or {}).items():
        chunks.add_itxt(keyword, value)
    Image.fromarray(pixels).save(data, format="PNG", compress_level=1, pnginfo=chunks)
    return data.getvalue()
