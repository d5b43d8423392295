"""SANA-Sprint, whose timestep embedding takes the guidance scale too: surgery works on it as on any SANA."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import SanaTransformer2DModel
from safetensors.torch import load_file

from sanactl.bench.synthetic import SANA_1_6B, TINY, synthetic_checkpoint
from sanactl.checkpoint.config import check_config
from sanactl.checkpoint.layouts.native import implied_config, native_names
from sanactl.checkpoint.layouts.pth import read_pth
from sanactl.checkpoint.open import open_checkpoint
from tests.program import Program

SPRINT = {**TINY, "guidance_embeds": True}


@pytest.fixture
def sprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return synthetic_checkpoint(tmp_path / "sprint.st", SPRINT)


def output(path: Path) -> torch.Tensor:
    config = dict(open_checkpoint(path).config)
    model = SanaTransformer2DModel.from_config(config).eval()
    model.load_state_dict(load_file(path), strict=True)
    torch.manual_seed(0)
    with torch.no_grad():
        return model(
            torch.randn(1, 4, 8, 8), torch.randn(1, 5, 12), torch.tensor([0.7]), guidance=torch.tensor([0.45])
        ).sample


def test_surgery_of_a_sprint_checkpoint(sprint: Path, tmp_path: Path, sanactl: Program) -> None:
    (record,) = sanactl("inspect", "sprint.st")
    assert record["model"] == "SANA-Sprint of 4 blocks, width 16"
    sanactl("grow", "sprint.st", "--to", "7", "--drop-last", "0")
    assert torch.equal(output(tmp_path / "sprint-d7.st"), output(sprint))
    sanactl("prune", "sprint-d7.st", "--blocks", "0-3", "-o", "back.st")
    assert torch.equal(output(tmp_path / "back.st"), output(sprint))
    sanactl("convert", "sprint.st", "-o", "sprint.pth")
    native = torch.load(tmp_path / "sprint.pth", weights_only=True)["state_dict"]
    assert {
        "cfg_embedder.mlp.0.weight",
        "cfg_embedder.mlp.2.bias",
        "t_embedder.mlp.0.weight",
    } <= native.keys()
    sanactl("convert", "sprint.pth", "-o", "again.st")
    assert torch.equal(output(tmp_path / "again.st"), output(sprint))
    sanactl("convert", "sprint.st", "-o", "folder")
    assert SanaTransformer2DModel.from_pretrained(tmp_path / "folder").config.guidance_embeds


def test_a_native_sprint_file_needs_no_config(tmp_path: Path) -> None:
    """The names are those of the reference code's `convert_sana_to_diffusers.py`."""
    config = check_config({**SANA_1_6B, "guidance_embeds": True, "num_layers": 1}, "x")
    made = SanaTransformer2DModel.from_config({**config, "num_attention_heads": 36, "num_cross_attention_heads": 16,
        "cross_attention_head_dim": 72, "cross_attention_dim": 1152, "mlp_ratio": 0.25})  # fmt: skip
    tensors = made.state_dict()
    full = check_config({"_class_name": "SanaTransformer2DModel", **made.config}, "x")
    native = {n: torch.cat([tensors[t] for t in names]) for n, names in native_names(full).items()}
    native["logvar_linear.weight"], native["logvar_linear.bias"] = torch.zeros(1, 1152), torch.zeros(1)
    torch.save({"state_dict": native}, tmp_path / "sprint.pth")
    implied = implied_config(read_pth(tmp_path / "sprint.pth").tensors, "x")
    assert implied["guidance_embeds"] is True
    opened = open_checkpoint(tmp_path / "sprint.pth", native=True)
    assert opened.config.qk_norm == "rms_norm_across_heads"
    assert opened.metadata["sanactl.dropped"] == "logvar_linear.weight, logvar_linear.bias"
    assert opened.tensors.keys() == tensors.keys()


def test_a_pipeline_of_it_is_a_sprint_pipeline(sprint: Path, tmp_path: Path, sanactl: Program) -> None:
    parts = tmp_path / "parts"
    for name, file, key, value in (
        ("vae", "config.json", "_class_name", "AutoencoderDC"),
        ("text_encoder", "config.json", "architectures", ["Gemma2Model"]),
        ("tokenizer", "tokenizer_config.json", "tokenizer_class", "GemmaTokenizer"),
        ("scheduler", "scheduler_config.json", "_class_name", "SCMScheduler"),
    ):
        (parts / name).mkdir(parents=True)
        (parts / name / file).write_text(json.dumps({key: value}))
    index = {"_class_name": "SanaSprintPipeline", "scheduler": ["diffusers", "SCMScheduler"]}
    index |= {"transformer": ["diffusers", "SanaTransformer2DModel"], "vae": ["diffusers", "AutoencoderDC"]}
    index |= {
        "text_encoder": ["transformers", "Gemma2Model"],
        "tokenizer": ["transformers", "GemmaTokenizer"],
    }
    (parts / "model_index.json").write_text(json.dumps(index))
    sanactl("convert", "sprint.st", "-o", "parts/transformer")
    sanactl("grow", "parts", "--to", "6", "--pipeline", "-o", "grown")
    made = json.loads((tmp_path / "grown" / "model_index.json").read_text())
    assert made["_class_name"] == "SanaSprintPipeline"
    assert made["scheduler"] == ["diffusers", "SCMScheduler"]
