"""From an image to a network's input, against loops over pixels and the programs that are meant, where they are here."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sanactl.scoring.distances import pixels
from sanactl.scoring.distances.inception import LAYERS
from sanactl.scoring.distances.weights import find_weights
from tests.scoring.inception_reference import features, random_state

SIDE = 299


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def bilinear(image: np.ndarray, y: float, x: float) -> np.ndarray:
    """At a place between pixels; outside, the border goes on."""
    h, w = image.shape[:2]
    y, x = min(max(y, 0.0), h - 1.0), min(max(x, 0.0), w - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
    rows = image.astype(float)
    above = rows[top, left] * (1 - (x - left)) + rows[top, right] * (x - left)
    below = rows[bottom, left] * (1 - (x - left)) + rows[bottom, right] * (x - left)
    return np.asarray(above * (1 - (y - top)) + below * (y - top))


PLACES = [(0, 0), (1, 7), (150, 149), (298, 298), (298, 3), (77, 211)]


@pytest.mark.parametrize("size", [(40, 60), (333, 520), (299, 299)])
def test_bilinear_ways_place_by_place(size: tuple[int, int]) -> None:
    image = picture(*size)
    ours, tensorflow = pixels.pytorch_fid(image), pixels.torch_fidelity(image)
    assert ours.shape == tensorflow.shape == (3, SIDE, SIDE)
    ratio = size[0] / SIDE, size[1] / SIDE
    for row, column in PLACES:
        half = bilinear(image, (row + 0.5) * ratio[0] - 0.5, (column + 0.5) * ratio[1] - 0.5)
        np.testing.assert_allclose(ours[:, row, column], 2 * half / 255 - 1, atol=1e-4)
        corner = bilinear(image, row * ratio[0], column * ratio[1])
        np.testing.assert_allclose(tensorflow[:, row, column], (corner - 128) / 128, atol=2e-4)


def test_sanas_way_cuts_the_middle_out() -> None:
    image = np.array(Image.fromarray(picture(9, 15)).resize((1000, 600), Image.Resampling.BICUBIC))
    small = Image.fromarray(image).resize((853, 512), Image.Resampling.BILINEAR)  # 512 * 1000 / 600 is 853.3
    left = round((853 - 512) / 2)
    middle = np.array(small.crop((left, 0, left + 512, 512)))
    assert torch.equal(pixels.sana(image), pixels.pytorch_fid(middle))
    square = picture(512, 512)
    assert torch.equal(pixels.sana(square), pixels.pytorch_fid(square))


def test_clean_ways_values_are_cut_and_not_rounded() -> None:
    found = pixels.clean(picture(64, 80)) * 128 + 128
    assert (float(found.min()), float(found.max())) == (0, 255)  # bicubic goes beyond
    calm = 80 + picture(64, 80) // 4
    found = pixels.clean(calm) * 128 + 128
    rounded = np.array(Image.fromarray(calm).resize((SIDE, SIDE), Image.Resampling.BICUBIC)).transpose(
        2, 0, 1
    )
    assert 0.4 < float((found - torch.tensor(rounded)).abs().max()) < 1.5


def test_what_is_generated_goes_through_a_jpeg_once(tmp_path: Path) -> None:
    image = picture(33, 47)
    png, jpeg = tmp_path / "a.png", tmp_path / "a.png.jpg"
    Image.fromarray(image).save(png)
    Image.fromarray(image).save(jpeg)  # Pillow's default quality, as torchvision's save_image
    with Image.open(io.BytesIO(jpeg.read_bytes())) as again:
        stored = np.array(again)
    np.testing.assert_array_equal(pixels.as_jpeg(png, image), stored)
    np.testing.assert_array_equal(pixels.as_jpeg(jpeg, stored), stored)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(random_state(), path)
    return path


def test_the_network_is_the_list_of_its_layers(weights: Path) -> None:
    inputs = pixels.pytorch_fid(picture(20, 30))[None]
    network = find_weights(str(weights)).load(2048)
    with torch.inference_mode():
        known = features(random_state(), inputs)
        for network.features in LAYERS:
            found = network(inputs)
            assert found.shape == (1, network.features)
            assert known[network.features].std() > 0.05
            torch.testing.assert_close(found, known[network.features], rtol=1e-4, atol=1e-4)


@pytest.fixture
def peers() -> None:
    pytest.importorskip("torchvision", reason="pytorch-fid needs torchvision, which is not installed here")
    pytest.importorskip("pytorch_fid", reason="pytorch-fid is not installed")
    pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")
    pytest.importorskip("cleanfid", reason="clean-fid is not installed")


def test_the_programs_that_are_meant_give_the_same(
    peers: None, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pytorch_fid.inception as their  # type: ignore[import-not-found, unused-ignore]
    from cleanfid.resize import build_resizer  # type: ignore[import-not-found, unused-ignore]
    from torch_fidelity.feature_extractor_inceptionv3 import (  # type: ignore[import-not-found, unused-ignore]
        FeatureExtractorInceptionV3,
    )
    from torchvision import transforms  # type: ignore[import-not-found, unused-ignore]

    monkeypatch.setattr(their, "load_state_dict_from_url", lambda url, progress: random_state())
    theirs, ours = their.InceptionV3([3]).eval(), find_weights(str(weights)).load(2048)
    fidelity = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(weights))
    for size in ((420, 640), (200, 150)):
        image = picture(*size)
        cut = transforms.Compose([transforms.Resize(512), transforms.CenterCrop(512), transforms.ToTensor()])
        pillow = Image.fromarray(image)
        with torch.no_grad():
            for mine, other in (
                (pixels.pytorch_fid(image), theirs(transforms.ToTensor()(pillow)[None])[0]),
                (pixels.sana(image), theirs(cut(pillow)[None])[0]),
                (pixels.torch_fidelity(image), fidelity(torch.tensor(image).permute(2, 0, 1)[None])[0]),
            ):
                torch.testing.assert_close(ours(mine[None]), other.flatten(1), rtol=1e-5, atol=1e-5)
        clean = torch.tensor(build_resizer("clean")(image)).permute(2, 0, 1)
        torch.testing.assert_close(pixels.clean(image), (clean - 128) / 128)
