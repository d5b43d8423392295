"""`eval fid`, `kid`, `fd-dinov2` and `cmmd` on tiny pictures and random weights, against computations of their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sanactl as api
from sanactl.cli.app import main
from sanactl.errors import InputError
from sanactl.scoring.distances import pixels
from sanactl.scoring.distances.networks import InceptionFeatures
from sanactl.scoring.distances.reference import open_reference
from sanactl.scoring.distances.weights import find_weights
from tests.program import Program
from tests.scoring.inception_reference import STEM, first_layers, run
from tests.scoring.picture_sets import Rows, frechet, listed


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(first_layers(), path)
    return path


def of_inception(folder: Path, prepare: Callable[[Rows], torch.Tensor]) -> Rows:
    """64 features of each image of a folder, float64."""
    inputs = torch.stack([prepare(np.array(Image.open(p))) for p in listed(folder)])
    with torch.inference_mode():
        return run(first_layers(), inputs, STEM[:4]).mean((2, 3)).double().numpy()


def command(metric: str, weights: Path, *more: str) -> list[str]:
    common = ["--weights", str(weights), "--features", "64", "--small", "--device", "cpu"]
    return ["eval", metric, "drawn", *common, *more]


def test_fid_is_that_of_an_own_computation(weights: Path, sets: list[Path], sanactl: Program) -> None:
    *images, score = sanactl(*command("fid", weights, "-r", "real", "--protocol", "clean", "-b", "5"))
    assert [Path(r["path"]).name for r in images] == [p.name for p in listed(sets[0])]
    known = frechet(of_inception(sets[0], pixels.clean), of_inception(sets[1], pixels.clean))
    assert known > 0.1
    assert score["value"] == pytest.approx(known, rel=1e-4)
    assert score["ci"][0] < known < score["ci"][1]
    assert (score["metric"], score["protocol"], score["features"], score["size"]) == ("fid", "clean", 64, 299)
    assert (score["images"], score["reference_images"], score["reference"]) == (11, 5, "real")
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (score["model"], score["model_digest"]) == ("inception:random", f"sha256:{sha256}")
    assert (score["dtype"], score["device"]) == ("float32", "cpu")


def test_statistics_of_a_reference_stand_for_its_images(
    weights: Path, sets: list[Path], sanactl: Program
) -> None:
    options = ["--size", "40", "-r"]
    score = sanactl(*command("fid", weights, *options, "real", "--save-reference", "real.npz"))[-1]
    rows = of_inception(sets[1], lambda image: pixels.sana(image, 40))
    with np.load("real.npz") as stored:  # as pytorch-fid reads it
        np.testing.assert_allclose(stored["mu"][:], rows.mean(0), atol=1e-5)
        np.testing.assert_allclose(stored["sigma"][:], np.cov(rows, rowvar=False), atol=1e-5)
    again = sanactl(*command("fid", weights, *options, "real.npz", "-b", "3", "-o", "2.jsonl"))[-1]
    assert again["value"] == pytest.approx(score["value"], rel=1e-5)  # in other batches
    assert again["ci"] == pytest.approx(score["ci"], rel=1e-4)
    assert (again["reference"], again["reference_images"]) == ("real.npz", 5)
    # What was made in another way is refused, before anything is computed.
    other = "made with {}, and the images are measured with {};"
    assert other.format("size 40", "512") in sanactl.fails(
        *command("fid", weights, "-r", "real.npz", "-o", "3.jsonl")
    )
    for protocol in ("clean", "torch-fidelity"):
        line = sanactl.fails(
            *command("fid", weights, "-r", "real.npz", "--protocol", protocol, "-o", "3.jsonl")
        )
        assert other.format("protocol sana", protocol) in line
    line = sanactl.fails(*command("fid", weights, *options, "real.npz", "--features", "192", "-o", "3.jsonl"))
    assert "of 64 features, and the images have 192" in line
    line = sanactl.fails(*command("kid", weights, *options, "real.npz"))
    assert "no features in it, which kid needs" in line
    line = sanactl.fails(
        *command("fid", weights, *options, "real", "--save-reference", "real.npz", "-f"), code=2
    )
    assert "real.npz already exists; use it with --reference real.npz" in line
    # Another program's, which says nothing, is taken at its word.
    np.savez("bare.npz", mu=rows.mean(0), sigma=np.cov(rows, rowvar=False))
    bare = sanactl(*command("fid", weights, *options, "bare.npz", "-o", "4.jsonl"))[-1]
    assert bare["value"] == pytest.approx(score["value"], rel=1e-4)
    assert bare["reference_images"] is None
    assert "bare.npz does not say how it was made" in sanactl.said


def test_kid_of_all_images_and_of_subsets(weights: Path, sets: list[Path], sanactl: Program) -> None:
    a, b = (of_inception(folder, pixels.torch_fidelity) for folder in sets)

    def kernel(x: Rows, y: Rows) -> Rows:
        return np.asarray((x @ y.T / 64 + 1) ** 3)

    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel(a, a), kernel(b, b))]
    known = sum(within) - 2 * kernel(a, b).mean()
    options = ["-r", "real", "--protocol", "torch-fidelity"]
    exact = sanactl(*command("kid", weights, *options, "--exact", "--save-reference", "kid.npz"))[-1]
    assert exact["value"] == pytest.approx(known, rel=1e-3)
    assert exact["ci"][0] < known < exact["ci"][1]
    options = ["-r", "kid.npz", "--protocol", "torch-fidelity", "--subset-size", "4", "--subsets", "400"]
    score = sanactl(*command("kid", weights, *options, "-o", "k.jsonl"))[-1]
    assert abs(score["value"] - known) < 4 * score["subset_std"] / 400**0.5
    assert (score["ci"], score["subsets"], score["subset_size"], score["seed"]) == (None, 400, 4, 2020)
    # The features are enough for a Fréchet distance, too.
    fid = sanactl(*command("fid", weights, "-r", "kid.npz", "--protocol", "torch-fidelity"))[-1]
    assert fid["value"] == pytest.approx(frechet(a, b), rel=1e-4)


def test_a_stopped_run_goes_on(
    weights: Path, sets: list[Path], sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    of_images = InceptionFeatures.features

    def stopped(self: InceptionFeatures, inputs: torch.Tensor) -> Any:
        calls.append(len(inputs))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return of_images(self, inputs)

    monkeypatch.setattr(InceptionFeatures, "features", stopped)
    monkeypatch.setattr("sanactl.scoring.distances.stream.ensure_checked", lambda *given: None)
    given = command("fid", weights, "-r", "real", "-b", "4")
    assert main(given) == 130
    *images, score = sanactl(*given)
    assert len(images) == 11
    assert "features of 9 images were taken over" in sanactl.said
    assert calls == [4, 1, 4, 4, 4, 3]
    fresh = sanactl(*given, "-o", "fresh.jsonl")[-1]
    assert fresh == score
    assert not list(Path().glob(".eval-fid*.partial"))


def test_few_images_and_no_reference_are_one_line(weights: Path, sets: list[Path], sanactl: Program) -> None:
    given = ["eval", "fid", "drawn", "--weights", str(weights), "--device", "cpu"]
    assert "the reference real has 5 images, fewer than 2,048" in sanactl.fails(*given, "-r", "real")
    np.savez("many.npz", mu=np.zeros(2048), sigma=np.eye(2048, dtype=np.float32))
    assert "there are 11 images, fewer than 2,048" in sanactl.fails(*given, "-r", "many.npz")
    one = '{"kind": "image", "path": "drawn/0.png", "prompt": ""}\n'
    small = [*given[:2], "-", *given[3:], "-r", "real", "--small"]
    assert "there is 1 image; a distance needs two or more" in sanactl.fails(*small, stdin=one)
    assert "no images to score came in" in sanactl.fails(*small, stdin="")
    assert "give --reference" in sanactl.fails(*given, code=2)
    assert "no such" in sanactl.fails(*given, "-r", "nowhere", "--small")
    Path("empty").mkdir()
    assert "empty: no images in it" in sanactl.fails(*given, "-r", "empty", "--small")
    assert "take one of 64, 192, 768, 2048" in sanactl.fails(*given, "-r", "real", "--features", "65", code=2)
    assert "no protocol 'dirty'" in sanactl.fails(*given, "-r", "real", "--protocol", "dirty", code=2)
    line = sanactl.fails(*given, "-r", "real", "--protocol", "clean", "--size", "256", code=2)
    assert "--size is of --protocol sana" in line
    Path("real/0/z.png").write_bytes(b"\x89PNG damaged")
    assert "real/0/z.png: not a readable image" in sanactl.fails(
        *given, "-r", "real", "--small", "--features", "64"
    )


def test_weights_are_found_and_checked(
    weights: Path, sets: list[Path], sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(Path("hub").absolute()))
    given = ["eval", "fid", "drawn", "-r", "real", "--small"]
    line = sanactl.fails(*given, code=2)
    assert "no weights of InceptionV3" in line
    assert "download https://github.com/mseitzer/pytorch-fid/releases" in line and "--weights FILE" in line
    cache = Path("hub/hub/checkpoints")
    cache.mkdir(parents=True)
    named = cache / "pt_inception-2015-12-05-6726825d.pth"
    named.symlink_to(weights)
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert f"begins with {sha256[:8]}, and its name says 6726825d" in sanactl.fails(*given)
    named.rename(cache / f"some-{sha256[:8]}.pth")
    network = InceptionFeatures(sha256[:12], "clean", 64, None, torch.device("cpu"), torch.float32)
    assert network.digest == f"sha256:{sha256}"
    assert "no file of the hash 12345678" in sanactl.fails(*given, "--weights", "12345678")

    for name, change, said in (
        ("lacks", {"Mixed_7c.branch_pool.bn.bias": None}, "lacks the tensor Mixed_7c.branch_pool.bn.bias"),
        ("more", {"Mixed_8a.w": torch.ones(1)}, "Mixed_8a.w is none of the FID's InceptionV3"),
        ("shape", {"Conv2d_1a_3x3.bn.bias": torch.ones(3)}, "has the shape (3,), the FID's has (32,)"),
        ("nan", {"Conv2d_1a_3x3.bn.bias": torch.full((32,), torch.nan)}, "no finite numbers"),
    ):
        changed = {k: v for k, v in {**first_layers(), **change}.items() if v is not None}
        torch.save(changed, f"{name}.pth")
        with pytest.raises(InputError) as caught:
            find_weights(f"{name}.pth").load(64)
        assert said in str(caught.value)
    Path("text.pth").write_text("weights")
    line = sanactl.fails(*given, "--weights", "text.pth")
    assert "text.pth cannot be used" in line


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"mu": np.zeros(64)}, "it has mu alone"),
        ({"x": np.zeros(64)}, "neither mu and sigma nor features"),
        ({"mu": np.zeros(64), "sigma": np.zeros((63, 64))}, "no mean and covariance"),
        ({"mu": np.full(64, np.nan), "sigma": np.eye(64)}, "no mean and covariance"),
        ({"mu": np.zeros(64), "sigma": np.triu(np.ones((64, 64)))}, "sigma is no covariance"),
        ({"mu": np.array([None] * 64), "sigma": np.eye(64)}, "cannot be read as statistics"),
        ({"features": np.zeros(64)}, "no table of finite numbers"),
        ({"mu": np.zeros(64), "sigma": np.eye(64), "count": "many"}, "its count is no int"),
    ],
)
def test_damaged_statistics_are_refused(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError, match=said):
        open_reference(str(tmp_path / "bad.npz"))


def test_a_file_that_is_no_archive_is_one_line(weights: Path, sets: list[Path], sanactl: Program) -> None:
    for data in (b"", b"PK\x03\x04 cut", b"text", b"\x80\x04."):
        Path("bad.npz").write_bytes(data)
        with pytest.raises(InputError, match=r"bad\.npz: cannot be read as statistics"):
            open_reference("bad.npz")
    assert "bad.npz: cannot be read" in sanactl.fails(*command("fid", weights, "-r", "bad.npz"))


def test_records_of_prompts_and_a_checkpoint(weights: Path, sets: list[Path], sanactl: Program) -> None:
    records = [
        {
            "kind": "image",
            "path": str(p),
            "prompt": f"p{n // 6}",
            "checkpoint": "base.st",
            "digest": "sha256:1",
        }
        for n, p in enumerate(listed(sets[0]))
    ]
    Path("drawn.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    given = ["--weights", str(weights), "--features", "64", "--small", "--protocol", "pytorch-fid"]
    *images, score = sanactl("eval", "fid", "drawn.jsonl", "-r", "drawn.jsonl", *given)
    assert images == records
    called = api.evaluate("drawn", "fid", reference="drawn", weights=str(weights), features=64, small=True)
    assert len(called) == 12
    assert dict(called[-1])["protocol"] == "sana"
    assert score["value"] == pytest.approx(0, abs=1e-6)
    # Two prompts fill no ten parts.
    assert (score["prompts"], score["ci"], score["checkpoint"], score["digest"]) == (
        2,
        None,
        "base.st",
        "sha256:1",
    )
