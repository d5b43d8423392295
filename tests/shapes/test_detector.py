"""The detector reads what the renderer drew, through noise and blur, and is not fooled by anything else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from sanactl.shapes.dataset import scene_and_prompt
from sanactl.shapes.detector import Detection, detect, detections_to_dicts
from sanactl.shapes.render import render
from sanactl.shapes.scene import Item, Scene
from sanactl.shapes.vocabulary import COLORS, SHAPES

Picture = NDArray[np.float64]
GREY = (128, 128, 128)


def box_iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def picture(scene: Scene, change: Callable[[Picture], Picture], size: int = 64) -> NDArray[np.uint8]:
    return np.clip(change(render(scene, size).astype(np.float64)) + 0.5, 0, 255).astype(np.uint8)


def read_correctly(scene: Scene, found: list[Detection], size: int) -> bool:
    """Every item found once with its shape and colour, at its place, and nothing else past 0.3."""
    found = [d for d in found if d.score > 0.3]
    hits = [
        d
        for item in scene.items
        for d in found
        if (d.shape, d.color) == (item.shape, item.color)
        and box_iou(d.box, tuple(v * size for v in item.box)) > 0.7
    ]
    return len(hits) == len(found) == len(scene.items)


def unchanged(x: Picture) -> Picture:
    return x


def noisy(x: Picture) -> Picture:
    return x + np.random.default_rng(int(x.sum())).normal(0, 8, x.shape)


def blurred(x: Picture) -> Picture:
    return np.asarray(ndimage.gaussian_filter(x, (0.7, 0.7, 0)))


@pytest.mark.parametrize(
    ("change", "size", "scenes", "share"),
    [
        (unchanged, 64, 600, 0.99),
        (noisy, 64, 600, 0.97),
        (blurred, 64, 600, 0.97),
        (unchanged, 32, 100, 0.95),
        (unchanged, 128, 100, 0.99),
    ],
)
def test_scenes_are_read_correctly(
    change: Callable[[Picture], Picture], size: int, scenes: int, share: float
) -> None:
    right = 0
    scores: list[float] = []
    for index in range(scenes):
        scene, _ = scene_and_prompt(index, seed=11)
        found = detect(picture(scene, change, size))
        assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)
        right += read_correctly(scene, found, size)
        scores += [d.score for d in found]
    assert right >= share * scenes
    # Counting takes an object from 0.9 on.
    assert np.quantile(scores, 0.01) > (0.95 if size >= 64 else 0.9)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_colour_is_named(shape: str) -> None:
    for color in COLORS:
        for level in (118, 138):
            scene = Scene((Item(shape, color, 0.47, 0.52, 8 / 64),), (level, level, level))
            (only,) = detect(render(scene))
            assert (only.shape, only.color) == (shape, color)
            assert only.mask.dtype == bool and only.mask.shape == (64, 64)


def test_touching_objects_of_two_colours_are_two() -> None:
    items = (Item("square", "red", 0.35, 0.5, 0.16), Item("circle", "yellow", 0.62, 0.5, 0.16))
    found = detect(render(Scene(items, GREY)))
    assert {(d.shape, d.color) for d in found if d.score > 0.9} == {("square", "red"), ("circle", "yellow")}


def test_objects_of_one_colour_part_at_their_neck() -> None:
    items = (Item("circle", "blue", 0.34, 0.5, 0.16), Item("circle", "blue", 0.635, 0.5, 0.16))
    found = [d for d in detect(render(Scene(items, GREY))) if d.score > 0.5]
    assert [d.shape for d in found] == ["circle", "circle"]


def test_an_object_of_two_halves_is_not_counted() -> None:
    image = render(Scene((Item("circle", "red", 0.5, 0.5, 0.18),), GREY))
    other = render(Scene((Item("circle", "blue", 0.5, 0.5, 0.18),), GREY))
    image[:, 32:] = other[:, 32:]
    assert all(d.score < 0.5 for d in detect(image))


def test_malformed_blobs_score_low() -> None:
    """Random smooth blobs, of which a few look like a shape by chance."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:64, :64] - 31.5
    best = []
    for _ in range(60):
        field = ndimage.gaussian_filter(rng.normal(size=(64, 64)), 3)
        inside = np.clip(2 * (field / field.std() + 1 - (x**2 + y**2) / 200) + 0.5, 0, 1)
        image = 128 + (np.array(COLORS["red"]) - 128) * inside[..., None]
        best.append(max((d.score for d in detect(image.astype(np.uint8))), default=0.0))
    assert np.median(best) < 0.2
    assert np.mean(np.array(best) > 0.9) < 0.1


def test_nothing_in_an_empty_picture() -> None:
    for level in (0, 118, 138, 255):
        assert detect(np.full((64, 64, 3), level, dtype=np.uint8)) == []
    rng = np.random.default_rng(0)
    faint = np.clip(rng.normal(128, 8, (64, 64, 3)), 0, 255).astype(np.uint8)
    assert detect(faint) == []


def test_nothing_sure_in_noise() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        smooth = ndimage.gaussian_filter(rng.normal(0, 1, (64, 64, 3)), (3, 3, 0))
        soft = np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)
        for image in (noise, soft):
            assert all(d.score <= 0.9 for d in detect(image))
        # Blocks of 8 px are squares: they may be seen, and nothing else.
        assert all(d.shape in ("square", "cross") for d in detect(coarse) if d.score > 0.9)


def test_detections_are_repeatable_and_serialise() -> None:
    image = render(scene_and_prompt(5)[0])
    first, second = (detections_to_dicts(detect(image)) for _ in range(2))
    assert first == second
    assert set(first[0]) == {"class", "color", "score", "box"}


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((64, 64), "detect needs"),
        ((64, 64, 4), "detect needs"),
        ((16, 64, 3), "64 x 16 pixels"),
        ((1025, 1024, 3), "1024 x 1025 pixels"),
    ],
)
def test_other_arrays_are_refused(shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        detect(np.zeros(shape, dtype=np.uint8))


def test_a_large_picture_is_read_in_bounded_memory() -> None:
    """Isolated dots are the most pieces that a picture can have; a filled one has the most pixels to be named."""
    import tracemalloc

    item = Item("square", "red", 0.5, 0.5, 0.3)
    large = render(Scene((item,), GREY), 1024)
    dots = np.full((1024, 1024, 3), 128, dtype=np.uint8)
    dots[::2, ::2] = 255
    tracemalloc.start()
    try:
        assert [(d.shape, d.color) for d in detect(large) if d.score > 0.9] == [("square", "red")]
        assert detect(dots) == []
        assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    finally:
        tracemalloc.stop()
