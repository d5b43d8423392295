"""Images: every common mode becomes RGB, and what is no image or too large is refused."""

from __future__ import annotations

import io
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sanactl.errors import InputError, SanactlError
from sanactl.io import images
from sanactl.io.images import read_image, write_png

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
    for name, content in (
        ("none", b""),
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
