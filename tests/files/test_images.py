"""Images: every common mode becomes RGB, and what is no image or too large is refused."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from sanactl.errors import InputError, SanactlError
from sanactl.files import images
from sanactl.files.images import image_size, read_image, write_png

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_there_and_back(tmp_path: Path) -> None:
    write_png(PIXELS, tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == PIXELS).all()
    write_png(255 - PIXELS, tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 255 - PIXELS).all()
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "1", "I;16", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = (
        Image.fromarray(PIXELS).convert("L").convert(mode) if mode != "I;16" else Image.new(mode, (7, 5), 900)
    )
    file = io.BytesIO()
    image.save(file, format="TIFF" if mode == "CMYK" else "PNG")
    pixels = read_image(io.BytesIO(file.getvalue()))
    assert pixels.shape == (5, 7, 3)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize(("mode", "kind"), [("I;16", "PNG"), ("I;16", "TIFF"), ("I;16B", "TIFF")])
def test_16_bit_grey_is_scaled(mode: str, kind: str) -> None:
    values = np.array([[0, 255, 256, 900], [30000, 40000, 65279, 65535]], dtype=np.uint16)
    image = Image.frombytes(mode, (4, 2), values.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
    file = io.BytesIO()
    image.save(file, format=kind)
    pixels = read_image(io.BytesIO(file.getvalue()))
    assert pixels.dtype == np.uint8
    assert (pixels == (values // 256)[..., None]).all()


def test_16_bit_grey_with_a_transparent_value() -> None:
    file = io.BytesIO()
    Image.new("I;16", (2, 2), 900).save(file, format="PNG", transparency=900)
    assert (read_image(io.BytesIO(file.getvalue())) == 255).all()


@pytest.mark.parametrize(("mode", "said"), [("F", "floating-point numbers"), ("I", "32-bit integers")])
def test_numbers_of_no_known_range_are_refused(tmp_path: Path, mode: str, said: str) -> None:
    Image.new(mode, (4, 4), 1).save(tmp_path / "a.tiff")
    with pytest.raises(InputError, match=rf"a\.tiff: its pixels are {said}"):
        read_image(tmp_path / "a.tiff")


def test_the_same_damaged_image_has_the_same_line() -> None:
    lines = set()
    for _ in range(3):
        with pytest.raises(InputError) as caught:
            read_image(io.BytesIO(b"nothing" * 20))
        lines.add(caught.value.message)
    assert len(lines) == 1


def test_transparency_is_laid_on_white() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(file, format="PNG")
    assert (read_image(io.BytesIO(file.getvalue())) == 255).all()


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_png(PIXELS, tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "none").write_bytes(b"")
    with pytest.raises(InputError, match="none: an empty file"):
        read_image(tmp_path / "none")
    for name, content in (
        ("text", b"hello"),
        ("half", whole[: len(whole) // 2]),
        ("eps", b"%!PS"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            read_image(tmp_path / name)
    with pytest.raises(InputError, match="no such image"):
        read_image(tmp_path / "gone.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 34)
    with pytest.raises(InputError, match="7 x 5"):
        read_image(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    with pytest.raises(InputError, match="larger"):
        read_image(tmp_path / "a.png")


def saved(kind: str, orientation: int, mode: str = "RGB") -> bytes:
    """Blocks of colour, larger than JPEG's, with an EXIF orientation."""
    blocks = np.repeat(np.repeat(PIXELS[:3, :4], 16, axis=0), 16, axis=1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    options: dict[str, dict[str, Any]] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0},
    }
    Image.fromarray(blocks).convert("L").convert(mode).save(file, kind, exif=exif, **options.get(kind, {}))
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(9))
def test_images_are_turned_as_their_camera_says(kind: str, orientation: int) -> None:
    data = saved(kind, orientation)
    with Image.open(io.BytesIO(data)) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    pixels = read_image(io.BytesIO(data))
    assert (pixels == wanted).all()
    assert image_size(io.BytesIO(data)) == pixels.shape[:2]
    assert pixels.shape == ((64, 48, 3) if orientation >= 5 else (48, 64, 3))


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "1", "I;16"])
def test_every_mode_is_turned(mode: str) -> None:
    data = saved("PNG", 6, mode)
    assert read_image(io.BytesIO(data)).shape == (64, 48, 3)
    assert image_size(io.BytesIO(data)) == (64, 48)


def test_an_orientation_behind_a_png_s_pixels_counts() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    data = file.getvalue()
    end = data.index(b"IEND") - 4
    late = data[:end] + chunk + data[end:]
    assert read_image(io.BytesIO(late)).shape == (7, 5, 3)
    assert image_size(io.BytesIO(late)) == (7, 5)
    assert image_size(io.BytesIO(data)) == (5, 7)


@pytest.mark.parametrize(
    "exif", [b"junk", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0" + b"\xff" * 4]
)
def test_damaged_exif_turns_nothing(exif: bytes, recwarn: pytest.WarningsRecorder) -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG", exif=exif)
    assert read_image(io.BytesIO(file.getvalue())).shape == (5, 7, 3)
    assert image_size(io.BytesIO(file.getvalue())) == (5, 7)
    assert not recwarn.list


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "blue", "green")]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], lossless=True)
    pixels = read_image(io.BytesIO(file.getvalue()))
    assert pixels.shape == (4, 6, 3) and (pixels == (255, 0, 0)).all()


def bomb(side: int) -> bytes:
    """The head of a PNG that says it has side x side pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    )


@pytest.mark.parametrize(
    "side", [8001, 10_000, 60_000]
)  # below and above what Pillow warns of, and what it refuses
def test_more_pixels_than_the_limit(side: int, recwarn: pytest.WarningsRecorder) -> None:
    for read in (read_image, image_size):
        with pytest.raises(InputError, match=r"pixels are more than 64,000,000$"):
            read(io.BytesIO(bomb(side)))
    assert not recwarn.list


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("fifo.png", "folder.png", "zero.png"):
        for read in (read_image, image_size):
            with pytest.raises(InputError, match=rf"{name}: is not a regular file"):
                read(tmp_path / name)


def test_damaged_files_are_refused_or_read(tmp_path: Path) -> None:
    """Bytes changed at random: whatever Pillow makes of them, the answer is an image or an error of ours."""
    rng = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF"):
        whole = np.frombuffer(saved(kind, 6) if kind != "BMP" and kind != "GIF" else plain(kind), np.uint8)
        for _ in range(100):
            damaged = whole.copy()
            places = rng.integers(0, min(len(whole), 300), 4)
            damaged[places] = rng.integers(0, 256, 4)
            for read in (read_image, image_size):
                with contextlib.suppress(InputError):
                    read(io.BytesIO(damaged.tobytes()))


def plain(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind)
    return file.getvalue()


def test_a_full_disk_leaves_no_half_image(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(SanactlError, match=r"a\.png"):
            write_png(noise, tmp_path / "a.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
