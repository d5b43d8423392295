"""What the commands write, opened and run by diffusers itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import SanaTransformer2DModel

from sanactl.bench.synthetic import TINY, synthetic_checkpoint
from sanactl.cli.app import main
from tests.program import Program


@pytest.fixture(params=["F32", "BF16"])
def here(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with base, a diffusers folder of four random blocks."""
    monkeypatch.chdir(tmp_path)
    synthetic_checkpoint("base", TINY, request.param)
    return tmp_path


def load(folder: str) -> SanaTransformer2DModel:
    """`from_pretrained` in fp32; fails where a tensor is missing or left over."""
    model, info = SanaTransformer2DModel.from_pretrained(
        folder, torch_dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model.eval()


def output(model: SanaTransformer2DModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, model.config.in_channels, 8, 8, generator=generator)
    text = torch.randn(2, 5, model.config.caption_channels, generator=generator)
    with torch.no_grad():
        return model(latents, text, torch.tensor([3.0, 700.0])).sample


IDENTITIES = [
    ["--drop-last", "0"],
    ["--drop-last", "0", "--position", "interleave"],
    ["--drop-last", "0", "--position", "2", "--sigma", "0.5", "--sigma-depthwise", "1"],
    ["--init", "cyclic", "--zero-init"],
    ["--init", "replicate", "--zero-init"],
    ["--init", "progressive", "--zero-init", "--position", "interleave"],
    ["--init", "interpolate", "--zero-init", "--position", "0"],
]


@pytest.mark.parametrize("options", IDENTITIES, ids=" ".join)
def test_growth_with_zeroed_outputs_computes_what_its_parent_computes(here: Path, options: list[str]) -> None:
    assert main(["grow", "base", "--to", "7", *options, "-o", "deep"]) == 0
    assert torch.equal(output(load("deep")), output(load("base")))


@pytest.mark.parametrize("init", ["partial", "cyclic", "replicate", "progressive", "interpolate"])
def test_growth_as_it_comes_changes_what_is_computed(here: Path, init: str) -> None:
    """Blocks were dropped or copied: the models open and run, and differ."""
    assert main(["grow", "base", "--to", "10", "--init", init, "-o", "deep"]) == 0
    model = load("deep")
    assert len(model.transformer_blocks) == 10
    found = output(model)
    assert torch.isfinite(found).all()
    assert not torch.equal(found, output(load("base")))


def test_qk_norms_that_are_inserted_are_those_of_a_fresh_model(here: Path) -> None:
    synthetic_checkpoint("old", {**TINY, "qk_norm": None})
    assert main(["grow", "old", "--qk-norm", "-o", "new"]) == 0
    fresh = SanaTransformer2DModel.from_config({**TINY, "qk_norm": "rms_norm_across_heads"})
    missing, unexpected = fresh.load_state_dict(load("old").state_dict(), strict=False)
    assert missing
    assert not unexpected
    assert all(".norm_q." in name or ".norm_k." in name for name in missing)
    assert torch.equal(output(load("new")), output(fresh.eval()))


@pytest.mark.parametrize("target", ["shallow", "shallow-sharded"])
def test_pruning_is_what_removing_modules_does(here: Path, target: str) -> None:
    size = "20KB" if target == "shallow-sharded" else "5GB"
    assert main(["prune", "base", "--blocks", "0,2-3", "-o", target, "--shard-size", size]) == 0
    by_hand = load("base")
    by_hand.transformer_blocks = torch.nn.ModuleList(by_hand.transformer_blocks[block] for block in (0, 2, 3))
    assert torch.equal(output(load(target)), output(by_hand))


def test_verify_says_whether_a_difference_is_expected(here: Path, sanactl: Program) -> None:
    (record,) = sanactl("grow", "base", "--to", "6", "--drop-last", "0", "--verify", "-o", "same.st")
    assert record["largest_difference"] == 0
    assert "agree exactly" in sanactl.said
    for options, why in (
        (["--to", "6"], "the last 2 blocks were left out"),
        (["--to", "6", "--init", "cyclic"], "the new blocks are not the identity"),
        (["--to", "6", "--drop-last", "1"], "the last block was left out"),
    ):
        (record,) = sanactl("grow", "base", *options, "--verify", "-o", "other.st", "--force")
        assert record["largest_difference"] > 0
        assert why in sanactl.said
        assert "expected" in sanactl.said
    said = sanactl.fails("grow", "base", "--to", "6", "--verify", "--dry-run", code=2)
    assert "--dry-run writes none" in said
    sanactl("convert", "base", "-o", "native.pth")
    (record,) = sanactl("grow", "native.pth", "--to", "6", "--drop-last", "0", "--verify", "-o", "from.st")
    assert record["largest_difference"] == 0
    assert sorted(path.name for path in here.glob(".verify-*")) == []
