"""A checkpoint of the transformer alone: `--components` says where its text encoder, autoencoder and scheduler are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sanactl.bench.synthetic import SANA_1_6B, synthetic_plan
from sanactl.checkpoint.config import check_config
from sanactl.checkpoint.given import published_components
from sanactl.checkpoint.open import Checkpoint, open_checkpoint
from tests.program import Program

FEW = ("-n", "1", "--steps", "1", "--prompt", "a red circle")


@pytest.fixture
def bare(place: Path, sanactl: Program) -> Path:
    """x.pth, a native file; trans, a transformer's folder that names nothing; pipe, the pipeline that both come from."""
    from safetensors.torch import load_file, save_file

    sanactl("convert", "tiny.st", "-o", "x.pth")
    sanactl("convert", "tiny.st", "--pipeline", "-o", "pipe")
    shutil.copytree("pipe/transformer", "trans")
    weights = Path("trans/diffusion_pytorch_model.safetensors")
    save_file(load_file(weights), weights, metadata={"format": "pt"})
    return place


def pixels(record: dict[str, str]) -> bytes:
    from PIL import Image

    with Image.open(record["path"]) as image:
        return image.tobytes()


@pytest.mark.parametrize("components", ["pipe", "builtin:shapes", "tiny.st"])
@pytest.mark.parametrize("checkpoint", ["x.pth", "trans"])
def test_a_transformer_alone_draws_the_same(
    bare: Path, sanactl: Program, checkpoint: str, components: str
) -> None:
    (whole,) = sanactl("sample", "tiny.st", *FEW)
    (alone,) = sanactl("sample", checkpoint, "--components", components, *FEW)
    assert pixels(alone) == pixels(whole)


def test_without_them_the_line_says_how_to_name_them(bare: Path, sanactl: Program) -> None:
    for command in (
        ("sample", "trans", *FEW),
        ("importance", "trans"),
        ("finetune", "trans", "--steps", "1"),
    ):
        assert "--components FOLDER|HUB-ID" in sanactl.fails(*command), command


def test_all_that_run_models_take_them(bare: Path, sanactl: Program) -> None:
    for command in ("importance", "finetune", "encode"):
        few = {"importance": FEW[2:], "finetune": ("--steps", "1", "-b", "2"), "encode": ("--count", "4")}
        sanactl(command, "trans", "--components", "pipe", *few[command])
    (drawn,) = sanactl("sample", "trans-ft1.st", *FEW)  # the trained checkpoint remembers them
    assert drawn["checkpoint"] == "trans-ft1.st"


@pytest.mark.parametrize(
    "command",
    [
        ("convert", "trans", "-o", "y.st"),
        ("grow", "trans", "--to", "4", "-o", "y.st"),
        ("prune", "x.pth", "--blocks", "0,1", "-o", "y.st"),
    ],
)
def test_they_are_remembered(bare: Path, sanactl: Program, command: tuple[str, ...]) -> None:
    sanactl(*command, "--components", "pipe")
    assert open_checkpoint("y.st").components["vae"] == {"source": str(bare / "pipe"), "subfolder": "vae"}
    sanactl("sample", "y.st", *FEW)


def test_other_components_make_other_images(bare: Path, sanactl: Program) -> None:
    shutil.copytree("pipe", "other")
    config = json.loads(Path("other/scheduler/scheduler_config.json").read_text())
    Path("other/scheduler/scheduler_config.json").write_text(json.dumps({**config, "flow_shift": 1.0}))
    few = (*FEW[:2], "--steps", "3", *FEW[4:])
    (own,) = sanactl("sample", "tiny.st", *few)
    (changed,) = sanactl("sample", "tiny.st", "--components", "other", *few)
    assert own["path"] != changed["path"]
    assert pixels(own) != pixels(changed)
    assert sanactl("sample", "tiny.st", *few) == [own]


@pytest.mark.parametrize(
    ("named", "line", "code"),
    [
        ("nowhere", "no such folder, and it is no Hub id", 1),
        ("./a/b", "no such folder, and it is no Hub id", 1),
        ("builtin:cats", "the only built-in world is builtin:shapes", 2),
        ("empty", "holds no text_encoder, tokenizer, vae or scheduler folder", 1),
        ("trans/diffusion_pytorch_model.safetensors", "names no components itself", 1),
        ("some/model", "cannot be had", 1),
    ],
)
def test_what_cannot_be_taken(
    bare: Path, sanactl: Program, named: str, line: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("empty").mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = sanactl.fails("sample", "trans", "--components", named, *FEW, code=code)
    assert line in said or (named == "some/model" and "some/model" in said)


@pytest.mark.parametrize(
    ("change", "published"),
    [
        ({"qk_norm": None}, "Sana_1600M_1024px_BF16_diffusers"),
        ({"qk_norm": None, "sample_size": 16}, "Sana_1600M_512px_diffusers"),
        ({"qk_norm": "rms_norm_across_heads"}, "SANA1.5_1.6B_1024px_diffusers"),
        ({"qk_norm": "rms_norm_across_heads", "num_layers": 60}, "SANA1.5_4.8B_1024px_diffusers"),
        ({"qk_norm": "rms_norm_across_heads", "num_layers": 33}, "SANA1.5_4.8B_1024px_diffusers"),
        ({"qk_norm": "rms_norm_across_heads", "guidance_embeds": True}, "Sana_Sprint_1.6B_1024px_diffusers"),
    ],
)
def test_published_models_suggest_their_components(change: dict[str, object], published: str) -> None:
    config = check_config({**SANA_1_6B, **change}, "x")
    assert published_components(config) == f"Efficient-Large-Model/{published}"


def test_the_suggestion_is_in_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program
) -> None:
    monkeypatch.chdir(tmp_path)
    from sanactl.model.loading import components_hint

    plan = synthetic_plan({**SANA_1_6B, "num_layers": 1})
    assert plan.config["num_layers"] == 1
    checkpoint = open_checkpoint_of(tmp_path)
    assert "--components Efficient-Large-Model/" in components_hint(checkpoint)


def open_checkpoint_of(folder: Path) -> Checkpoint:
    from dataclasses import replace

    from sanactl.checkpoint.builtin import asset

    base = open_checkpoint(asset("base.st"))
    return replace(base, config=check_config({**SANA_1_6B, "num_layers": 20}, "x"))
