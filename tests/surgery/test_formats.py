"""Every format to every other and back, through the command line, and the field's own loaders on what was written."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import SanaPipeline, SanaTransformer2DModel
from safetensors.torch import load_file

from sanactl.checkpoint.open import open_checkpoint
from sanactl.cli.app import main

# name to (options, output); the last has the transformer's part in a folder of its own
FORMATS: dict[str, tuple[list[str], str]] = {
    "file": ([], "x.st"),
    "folder": ([], "x"),
    "sharded": (["--shard-size", "150KB"], "x-sharded"),
    "native": ([], "x.pth"),
    "pipeline": (["--pipeline"], "x-pipeline"),
}


def state(path: Path) -> dict[str, bytes]:
    """Every tensor's dtype, shape and bytes, in diffusers' names for all but a .pth."""
    if path.suffix == ".pth":
        tensors = torch.load(path, weights_only=True)["state_dict"]
    else:
        inside = path / "transformer" if (path / "transformer").is_dir() else path
        files = sorted(inside.glob("*.safetensors")) if inside.is_dir() else [inside]
        tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    return {
        name: f"{tensor.dtype} {tuple(tensor.shape)} ".encode()
        + tensor.contiguous().view(torch.uint8).numpy().tobytes()
        for name, tensor in tensors.items()
    }


@pytest.fixture(scope="module")
def formats(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same checkpoint in every format."""
    folder = tmp_path_factory.mktemp("formats")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for options, name in FORMATS.values():
            assert main(["convert", str(tiny_file), *options, "-o", name]) == 0
    return folder


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(FORMATS, 2)))
def test_there_and_back(
    formats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (there, name), (back, original) = FORMATS[second], FORMATS[first]
    (tmp_path / "back").mkdir()
    assert main(["convert", str(formats / original), *there, "-o", name]) == 0
    assert state(tmp_path / name) == state(formats / name)
    assert main(["convert", name, *back, "-o", f"back/{original}"]) == 0
    assert state(tmp_path / "back" / original) == state(formats / original)
    before = open_checkpoint(formats / original, native=True)
    after = open_checkpoint(tmp_path / "back" / original, native=True)
    assert (after.config, after.lineage, after.sampling) == (before.config, before.lineage, before.sampling)
    if before.path.is_file() and second != "pipeline":  # whose components are its own folders from then on
        assert (tmp_path / "back" / original).read_bytes() == before.path.read_bytes()


@pytest.mark.parametrize("name", ["x", "x-sharded", "x-pipeline/transformer"])
def test_diffusers_opens_folders(formats: Path, name: str) -> None:
    model, info = SanaTransformer2DModel.from_pretrained(
        formats / name, torch_dtype=torch.float16, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    expected = load_file(formats / "x.st")
    assert all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())


def test_diffusers_opens_a_single_file(formats: Path, tmp_path: Path) -> None:
    """It goes by the suffix, and takes the config from a folder."""
    shutil.copyfile(formats / "x.st", tmp_path / "x.safetensors")
    model = SanaTransformer2DModel.from_single_file(
        str(tmp_path / "x.safetensors"), config=str(formats / "x"), torch_dtype=torch.float16
    )
    expected = load_file(formats / "x.st")
    assert all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())


def test_shards_and_their_index(formats: Path) -> None:
    folder = formats / "x-sharded"
    index = json.loads((folder / "diffusion_pytorch_model.safetensors.index.json").read_text())["weight_map"]
    shards = sorted(file.name for file in folder.glob("*.safetensors"))
    assert sorted(set(index.values())) == shards
    assert len(shards) > 2
    for shard in shards:
        tensors = load_file(folder / shard)
        assert {name for name, file in index.items() if file == shard} == tensors.keys()
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        assert len(tensors) == 1 or size <= 150_000


def draw(folder: Path) -> torch.Tensor:
    """An image of a whole pipeline, fp32, two steps."""
    pipeline = SanaPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        "a red star", num_inference_steps=2, height=64, width=64, output_type="pt", complex_human_instruction=None,
        use_resolution_binning=False, max_sequence_length=16, generator=torch.Generator().manual_seed(0),
    ).images  # fmt: skip


@pytest.mark.parametrize("components", ["links", "copies"])
def test_a_pipeline_folder_draws_what_its_parent_draws(
    formats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, components: str
) -> None:
    """Converted, and grown by blocks that are the identity: SanaPipeline gives the same image, bit for bit."""
    monkeypatch.chdir(tmp_path)
    link = ["--link"] if components == "links" else []
    assert (
        main(
            [
                "grow",
                str(formats / "x.pth"),
                "--to",
                "5",
                "--drop-last",
                "0",
                "--pipeline",
                *link,
                "-o",
                "deep",
            ]
        )
        == 0
    )
    assert (tmp_path / "deep" / "vae").is_symlink() == bool(link)
    assert torch.equal(draw(tmp_path / "deep"), draw(formats / "x-pipeline"))
    assert main(["prune", "deep", "--blocks", "0-2", "--pipeline", "-o", "back"]) == 0
    assert torch.equal(draw(tmp_path / "back"), draw(formats / "x-pipeline"))
