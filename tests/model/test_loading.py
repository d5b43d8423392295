"""Checkpoints to modules and back, and what is said where a part is missing or wrong."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.open import open_checkpoint
from sanactl.errors import InputError, UsageError
from sanactl.files.safetensors import DATA_ALIGNMENT, read_header
from sanactl.model.conditioning import Sana, sampling_settings
from sanactl.model.loading import (
    component_dtype,
    dtype_warning,
    load_components,
    load_transformer,
    resolve_dtype,
)
from sanactl.model.saving import rewrite_weights, save_transformer, write_tensors
from tests.program import Program


def test_weights_are_the_files(place: Path) -> None:
    from diffusers import SanaTransformer2DModel

    tiny = open_checkpoint("tiny.st")
    model = load_transformer(tiny)
    assert isinstance(model, SanaTransformer2DModel)
    assert not model.training
    stored = load_file("tiny.st")
    assert set(model.state_dict()) == set(stored)
    assert all((value == stored[name].float()).all() for name, value in model.state_dict().items())
    assert {p.dtype for p in load_transformer(tiny, dtype=torch.bfloat16).parameters()} == {torch.bfloat16}


def test_a_model_with_a_position_table_gets_it(tmp_path: Path) -> None:
    """interpolation_scale gives a sine-cosine table that is a buffer, and in no checkpoint."""
    from diffusers import SanaTransformer2DModel

    from sanactl.checkpoint.metadata import encode_metadata

    config = {**open_checkpoint(asset("base.st")).config, "num_layers": 1, "interpolation_scale": 2}
    theirs = SanaTransformer2DModel(**config).eval()
    write_tensors(theirs.state_dict(), tmp_path / "a.st", encode_metadata(config))
    ours = load_transformer(open_checkpoint(tmp_path / "a.st"))
    inputs = {
        "hidden_states": torch.randn(1, 8, 8, 8),
        "encoder_hidden_states": torch.randn(1, 4, 96),
        "timestep": torch.tensor([500.0]),
    }
    with torch.no_grad():
        assert (ours(**inputs).sample == theirs(**inputs).sample).all()


def test_there_and_back(place: Path) -> None:
    tiny = open_checkpoint("tiny.st")
    model = load_transformer(tiny)
    for target in ("a.st", "b.st"):
        save_transformer(model, tiny, Path(target), command="finetune", arguments={"steps": 1}, seed=3)
    assert Path("a.st").read_bytes() == Path("b.st").read_bytes()
    saved = open_checkpoint("a.st")
    assert saved.dtypes == tiny.dtypes
    assert all((v == load_file("tiny.st")[k]).all() for k, v in load_file("a.st").items())
    save_transformer(model, tiny, Path("c.st"), command="x", arguments={}, dtype=torch.bfloat16)
    assert open_checkpoint("c.st").dtypes == {"BF16": tiny.num_parameters}


def test_tensors_of_every_width_are_aligned(tmp_path: Path) -> None:
    tensors = {
        "odd": torch.arange(3, dtype=torch.bfloat16),
        "scalar": torch.tensor(2.5),
        "turned": torch.arange(6.0).view(2, 3).T,
        "half": torch.arange(5, dtype=torch.float16),
    }
    write_tensors(tensors, tmp_path / "a.st", {"format": "pt"})
    assert read_header(tmp_path / "a.st").data_start == DATA_ALIGNMENT
    for info in read_header(tmp_path / "a.st").tensors.values():
        assert info.offset % (4 if info.dtype == "F32" else 2) == 0
    loaded = load_file(tmp_path / "a.st")
    assert all((loaded[k] == v).all() and loaded[k].dtype == v.dtype for k, v in tensors.items())


def test_a_model_that_a_library_saved_is_written_as_others_are(tmp_path: Path) -> None:
    from diffusers import AutoencoderDC
    from transformers import AutoModel

    for cls, name in ((AutoencoderDC, "vae"), (AutoModel, "text_encoder")):
        folder = tmp_path / name
        cls.from_pretrained(asset(name)).save_pretrained(folder)
        (weights,) = folder.glob("*.safetensors")
        before, metadata = load_file(weights), read_header(weights).metadata
        rewrite_weights(folder)
        after = read_header(weights)
        assert after.data_start % DATA_ALIGNMENT == 0
        assert after.metadata == metadata
        assert load_file(weights).keys() == before.keys()
        assert all(tensor.equal(before[key]) for key, tensor in load_file(weights).items())
        assert weights.stat().st_mode == (folder / "config.json").stat().st_mode
        loaded = cls.from_pretrained(folder)
        assert all(p.equal(before[key]) for key, p in loaded.named_parameters())


def test_components_are_found_where_the_header_says(place: Path) -> None:
    tiny = open_checkpoint("tiny.st")
    found = load_components(tiny)
    assert type(found.vae).__name__ == "AutoencoderDC"
    assert type(found.scheduler).__name__ == "DPMSolverMultistepScheduler"
    assert not hasattr(found.text_encoder, "lm_head")
    assert not any(p.requires_grad for p in found.vae.parameters())
    shutil.copytree(asset("vae"), place / "world/vae")
    beside = replace(tiny, components={"vae": {"source": "world", "subfolder": "vae"}})
    assert load_components(beside, parts=("vae",)).vae is not None


@pytest.mark.parametrize(
    ("components", "said"),
    [
        ({}, "names no vae"),
        ({"vae": {"source": "./gone", "subfolder": "vae"}}, "./gone is not there"),
        ({"vae": {"source": "builtin:moon", "subfolder": "vae"}}, "builtin:moon"),
        ({"vae": {"source": "broken"}}, "its VAE: broken holds no diffusion_pytorch_model.safetensors"),
    ],
)
def test_components_that_are_not_there(place: Path, components: dict, said: str) -> None:
    (place / "broken").mkdir()
    (place / "broken/config.json").write_text("{}")
    with pytest.raises(InputError, match=said):
        load_components(replace(open_checkpoint("tiny.st"), components=components), parts=("vae",))


def test_an_autoencoder_of_another_scale_is_refused(place: Path) -> None:
    """One stage less makes 4 pixels of a latent."""
    from diffusers import AutoencoderDC

    config = AutoencoderDC.load_config(asset("vae"))
    for key, value in config.items():
        if key.startswith(("encoder_", "decoder_")) and isinstance(value, list | tuple):
            config[key] = value[:-1]
    AutoencoderDC.from_config(config).save_pretrained(place / "world/vae")
    tiny = open_checkpoint("tiny.st")
    other = replace(tiny, components={**tiny.components, "vae": {"source": "world", "subfolder": "vae"}})
    with pytest.raises(InputError, match="VAE does not make 8 pixels of a latent"):
        Sana(other, sampling_settings(other), device=torch.device("cpu"), dtype=torch.float32)


def test_dtypes(place: Path) -> None:
    cpu = torch.device("cpu")
    assert resolve_dtype(None, cpu) == torch.float32
    assert resolve_dtype(None, torch.device("cuda")) == torch.bfloat16
    assert resolve_dtype("fp16", cpu) == torch.float16
    with pytest.raises(UsageError, match="fp8"):
        resolve_dtype("fp8", cpu)


SANA_1_0: dict[str, Any] = {"num_attention_heads": 70, "attention_head_dim": 32, "qk_norm": None}


@pytest.mark.parametrize(
    ("name", "config", "dtype", "warned"),
    [
        ("Efficient-Large-Model/Sana_1600M_1024px_diffusers", {}, torch.bfloat16, True),
        ("Efficient-Large-Model/Sana_1600M_1024px_diffusers", {}, torch.float32, True),
        ("Efficient-Large-Model/Sana_1600M_1024px_diffusers", {}, torch.float16, False),
        ("Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers", {}, torch.bfloat16, False),
        ("Sana_600M_512px", {"num_attention_heads": 36}, torch.bfloat16, True),
        ("mine-bf16.st", {}, torch.bfloat16, True),  # a cast says nothing of how it was trained
        ("SANA1.5_1.6B_1024px_diffusers", {"qk_norm": "rms_norm_across_heads"}, torch.bfloat16, False),
        ("another.st", {"num_attention_heads": 3}, torch.bfloat16, False),
    ],
)
@pytest.mark.parametrize("stored", ["F32", "F16", "BF16"])
def test_fp16_trained_weights_are_told_by_the_model(
    place: Path, name: str, config: dict[str, Any], dtype: torch.dtype, warned: bool, stored: str
) -> None:
    """Whatever dtype its file has: the published fp32 files of SANA-1.0 break, too."""
    tiny = open_checkpoint("tiny.st")
    tensors = {key: replace(ref, dtype=stored) for key, ref in tiny.tensors.items()}
    settings = replace(tiny.config, **{**SANA_1_0, **config})
    old = replace(tiny, ref=name, path=Path(name), tensors=tensors, config=settings)
    said = dtype_warning(old, dtype)
    assert ("--dtype fp16" in str(said)) == warned
    grown = replace(old, ref="g.st", path=Path("g.st"), lineage=[{"parents": [{"name": name}]}])
    assert dtype_warning(grown, dtype) is None or warned


def test_text_encoder_and_vae_are_never_fp16(place: Path) -> None:
    """Both overflow in it."""
    tiny = open_checkpoint("tiny.st")
    sana = Sana(tiny, sampling_settings(tiny, steps=1), device=torch.device("cpu"), dtype=torch.float16)
    assert sana.transformer.dtype == torch.float16
    assert {sana.components.vae.dtype, sana.texts.encoder().dtype} == {torch.float32}
    assert np.isfinite(next(sana.draw(["a star"], [1]))[1]).all()
    assert component_dtype(torch.bfloat16, "cpu") == torch.bfloat16


def test_values_that_are_not_finite_stop_the_run(place: Path, sanactl: Program) -> None:
    """Black images are not handed out as if they were drawn."""
    state = load_file("tiny.st")
    state["transformer_blocks.1.ff.conv_point.weight"].fill_(float("inf"))
    write_tensors(state, Path("bad.st"), open_checkpoint("tiny.st").metadata)
    sanactl("sample", "bad.st", "-n", "1", "--steps", "1", "--limit", "1", code=1)
    assert "not finite in float32" in sanactl.said
    assert not list(place.glob("bad-samples/*/samples/*.png"))
    assert "not finite" in sanactl.fails("importance", "bad.st", "--steps", "1")
