"""A whole pipeline folder as the target of a conversion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from diffusers import SanaPipeline

from sanactl.bench.synthetic import synthetic_checkpoint
from sanactl.checkpoint.open import open_checkpoint
from sanactl.checkpoint.pipeline import write_pipeline
from sanactl.errors import InputError, OutputExistsError, SanactlError
from sanactl.surgery.convert import plan_convert
from sanactl.surgery.grow import Growth, plan_grow


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A pipeline with a real transformer and scheduler, and components as far as their configs."""
    from diffusers import DPMSolverMultistepScheduler

    folder = tmp_path / "pipe"
    scheduler = DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
    )
    scheduler.save_pretrained(folder / "scheduler")
    for name, file, text in (
        ("vae", "config.json", {"_class_name": "AutoencoderDC"}),
        ("text_encoder", "config.json", {"architectures": ["Gemma2Model"]}),
        ("tokenizer", "tokenizer_config.json", {"tokenizer_class": "GemmaTokenizer"}),
    ):
        (folder / name).mkdir()
        (folder / name / file).write_text(json.dumps(text))
    index = {
        "_class_name": "SanaPipeline",
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "text_encoder": ["transformers", "Gemma2Model"],
        "tokenizer": ["transformers", "GemmaTokenizer"],
        "transformer": ["diffusers", "SanaTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderDC"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    synthetic_checkpoint(folder / "transformer")
    return folder


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("with_index", [False, True])
def test_a_grown_pipeline(pipeline: Path, tmp_path: Path, link: bool, with_index: bool) -> None:
    checkpoint = open_checkpoint(pipeline)
    before = json.loads((pipeline / "model_index.json").read_text())
    if not with_index:  # then each component's own config has to tell its class
        (pipeline / "model_index.json").unlink()
    target = write_pipeline(plan_grow(checkpoint, Growth(6)), tmp_path / "deep", link=link)
    assert json.loads((target / "model_index.json").read_text()) == before
    assert (target / "vae").is_symlink() == link
    assert (target / "vae" / "config.json").read_text() == (pipeline / "vae" / "config.json").read_text()
    loaded = SanaPipeline.from_pretrained(target, vae=None, text_encoder=None, tokenizer=None)
    assert loaded.scheduler.config.flow_shift == 3.0
    assert len(loaded.transformer.transformer_blocks) == 6
    again = open_checkpoint(target)
    assert again.kind == "pipeline"
    assert again.lineage[-1]["command"] == "grow"
    assert again.components["vae"] == {"source": str(target), "subfolder": "vae"}
    with pytest.raises(OutputExistsError):
        write_pipeline(plan_grow(checkpoint, Growth(6)), target)
    write_pipeline(plan_grow(checkpoint, Growth(7)), target, force=True)
    assert open_checkpoint(target).num_blocks == 7
    assert (pipeline / "vae" / "config.json").exists()  # replacing the links did not touch what they lead to


def test_missing_components_are_named(pipeline: Path, tmp_path: Path) -> None:
    bare = open_checkpoint(pipeline / "transformer")
    with pytest.raises(InputError, match="needs a text_encoder and a tokenizer and a vae and a scheduler"):
        write_pipeline(plan_convert(bare, "x"), tmp_path / "x")
    checkpoint = open_checkpoint(pipeline)
    (pipeline / "vae" / "config.json").unlink()
    (pipeline / "vae").rmdir()
    with pytest.raises(InputError, match="vae should lie in"):
        write_pipeline(plan_convert(checkpoint, "x"), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_force_spares_a_folder_of_other_things(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    with pytest.raises(SanactlError, match=r"thesis\.tex"):
        write_pipeline(plan_convert(open_checkpoint(pipeline), "x"), tmp_path / "home", force=True)
