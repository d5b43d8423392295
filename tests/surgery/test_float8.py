"""Weights of eight bits: cast for real, copied as they are, and refused where new values would be made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sanactl.bench.synthetic import synthetic_checkpoint
from sanactl.checkpoint.open import open_checkpoint
from sanactl.errors import InputError
from sanactl.files.float8 import FLOAT8_DTYPES, float8_values
from sanactl.files.safetensors import read_header
from sanactl.surgery.convert import plan_convert
from tests.program import Program

KINDS = {
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz, "F8_E8M0": torch.float8_e8m0fnu,
}  # fmt: skip
TARGETS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def eight_bits(folder: Path, kind: torch.dtype, name: str = "f8.st") -> Path:
    """base.st with every tensor in eight bits."""
    base = synthetic_checkpoint(folder / "base.st", force=True)
    tensors = {n: t.abs().clamp_min(1e-3).to(kind) for n, t in load_file(base).items()}
    if name.startswith("mixed"):
        tensors |= {n: t for n, t in load_file(base).items() if t.ndim == 1}
    save_file(tensors, folder / name, read_header(base).metadata)
    return folder / name


@pytest.mark.parametrize("dtype", FLOAT8_DTYPES)
def test_every_byte_stands_for_what_torch_says(dtype: str) -> None:
    expected = torch.arange(256, dtype=torch.uint8).view(KINDS[dtype]).float()
    assert torch.equal(
        torch.from_numpy(float8_values(dtype)).view(torch.int32) << 1, expected.view(torch.int32) << 1
    ) or (
        torch.equal(
            torch.nan_to_num(torch.from_numpy(float8_values(dtype)), 7.5), torch.nan_to_num(expected, 7.5)
        )
    )
    assert float8_values(dtype).shape == (256,)


@pytest.mark.parametrize("dtype", TARGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_cast_is_torchs_and_leaves_none_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program, kind: str, dtype: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name = eight_bits(tmp_path, KINDS[kind], "mixed.st" if kind == "F8_E5M2" else "f8.st").name
    (record,) = sanactl("convert", name, "--dtype", dtype, "-o", "x.st")
    opened = open_checkpoint(tmp_path / "x.st")
    assert opened.dtypes == {{"bf16": "BF16", "fp16": "F16", "fp32": "F32"}[dtype]: record["parameters"]}
    found, source = load_file(tmp_path / "x.st"), load_file(tmp_path / name)
    assert all(torch.equal(found[n], t.float().to(TARGETS[dtype])) for n, t in source.items())
    assert opened.lineage[-1]["command"] == "convert"


def test_blocks_of_eight_bits_are_copied_and_none_is_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program
) -> None:
    monkeypatch.chdir(tmp_path)
    source = load_file(eight_bits(tmp_path, torch.float8_e4m3fn))
    sanactl("prune", "f8.st", "--blocks", "1,3")
    sanactl("grow", "f8.st", "--to", "6", "--init", "cyclic", "--zero-init", "-o", "g.st")
    for name, block, of in (("f8-d2.st", 1, 3), ("g.st", 3, 3)):
        key = "attn1.to_q.weight"
        made = load_file(tmp_path / name)[f"transformer_blocks.{block}.{key}"]
        assert torch.equal(made.view(torch.uint8), source[f"transformer_blocks.{of}.{key}"].view(torch.uint8))
    for options in ([], ["--init", "progressive"], ["--init", "interpolate"]):
        line = sanactl.fails("grow", "f8.st", "--to", "9", *options)
        assert "sanactl convert --dtype bf16" in line
    assert "F8_E4M3" in sanactl.fails("grow", "f8.st", "--to", "9")


def test_whole_numbers_are_not_cast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program
) -> None:
    monkeypatch.chdir(tmp_path)
    base = synthetic_checkpoint(tmp_path / "base.st")
    tensors = load_file(base)
    tensors["proj_out.weight"] = tensors["proj_out.weight"].to(torch.int8)
    save_file(tensors, tmp_path / "i8.st", read_header(base).metadata)
    assert "I8 tensors (proj_out.weight)" in sanactl.fails(
        "convert", "i8.st", "--dtype", "bf16", "-o", "x.st"
    )
    sanactl("convert", "i8.st", "-o", "copy")
    with pytest.raises(InputError, match="does not undo a quantisation"):
        plan_convert(open_checkpoint(tmp_path / "i8.st"), "x.st", "fp32")
    save_file(
        {**load_file(base), "proj_out.weight_scale": torch.ones(1)},
        tmp_path / "s.st",
        read_header(base).metadata,
    )
    assert "scales of quantised weights" in sanactl.fails("inspect", "s.st")
