"""Growth, held against the real diffusers class."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SanaTransformer2DModel
from safetensors.torch import load_file

from sanactl.bench.synthetic import TINY, synthetic_checkpoint
from sanactl.checkpoint.open import Checkpoint, open_checkpoint
from sanactl.checkpoint.sana import expected_tensors
from sanactl.checkpoint.write import write_checkpoint
from sanactl.errors import UsageError
from sanactl.surgery.grow import Growth, plan_grow, plan_qk_norm
from sanactl.surgery.layout import Mixed, New, layout
from tests.surgery.models import load, output


@pytest.mark.parametrize("target", ["child.st", "child"])
@pytest.mark.parametrize("qk_norm", ["rms_norm_across_heads", None])
def test_partial_growth_without_dropping_is_the_identity(
    tmp_path: Path, target: str, qk_norm: str | None
) -> None:
    parent = synthetic_checkpoint(tmp_path / "parent.st", {**TINY, "qk_norm": qk_norm})
    child = write_checkpoint(plan_grow(open_checkpoint(parent), Growth(9, drop_last=0)), tmp_path / target)
    assert open_checkpoint(child).num_blocks == 9
    assert torch.equal(output(load(child)), output(load(parent)))


@pytest.mark.parametrize("init", ["cyclic", "replicate"])
def test_copies_with_zeroed_outputs_are_the_identity(base: Checkpoint, tmp_path: Path, init: str) -> None:
    child = write_checkpoint(plan_grow(base, Growth(10, init, zero_init=True)), tmp_path / "child.st")
    assert torch.equal(output(load(child)), output(load(base.path)))
    plain = write_checkpoint(plan_grow(base, Growth(10, init)), tmp_path / "plain.st")
    assert not torch.equal(output(load(plain)), output(load(base.path)))


@pytest.mark.parametrize(
    ("init", "sources"),
    [("cyclic", [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]), ("replicate", [0, 0, 0, 1, 1, 1, 2, 2, 3, 3])],
)
def test_replicated_blocks_are_byte_for_byte(
    base: Checkpoint, tmp_path: Path, init: str, sources: list[int]
) -> None:
    before = load_file(base.path)
    after = load_file(write_checkpoint(plan_grow(base, Growth(10, init)), tmp_path / "child.st"))
    for index, source in enumerate(sources):
        for name in base.block_tensors(0):
            one, other = (
                after[f"transformer_blocks.{index}.{name}"],
                before[f"transformer_blocks.{source}.{name}"],
            )
            assert torch.equal(one, other), (index, name)


def test_layouts_match_the_equations_of_section_2_2() -> None:
    assert layout(20, 60, "cyclic") == [index % 20 for index in range(60)]
    assert layout(20, 60, "replicate") == [index // 3 for index in range(60)]
    assert layout(18, 60, "partial") == [*range(18), *[New()] * 42]


def test_positions_of_new_blocks() -> None:
    new = New()
    assert layout(3, 6, "partial", "interleave") == [0, new, new, 1, new, 2]
    assert layout(1, 3, "partial", "interleave") == [0, new, new]
    assert layout(3, 5, "partial", 0) == [new, new, 0, 1, 2]
    assert layout(3, 5, "partial", 2) == [0, 1, new, new, 2]
    assert layout(3, 4, "progressive", 1) == [0, Mixed(0, 0, steps=1), 1, 2]
    quarters = [Mixed(0, 1, alpha) for alpha in (0.25, 0.5, 0.75)]
    assert layout(2, 5, "interpolate", "interleave") == [0, *quarters, 1]
    for position in (4, -1, "middle"):
        with pytest.raises(UsageError):
            layout(3, 5, "partial", position)
    with pytest.raises(UsageError):
        layout(3, 5, "cyclic", "interleave")


def test_interpolation_follows_the_reference() -> None:
    slots = layout(20, 60, "interpolate")
    for index in range(20, 60):  # init_interpolation of the reference code, line for line
        lower = (index * 20) // 60
        slot = slots[index]
        assert isinstance(slot, Mixed)
        assert (slot.lower, slot.upper) == (lower, min(lower + 1, 19))
        assert slot.alpha == pytest.approx(index * 20 / 60 - lower)


@pytest.mark.parametrize("position", ["interleave", 0, 2])
@pytest.mark.parametrize("init", ["partial", "progressive", "interpolate"])
def test_new_blocks_are_the_identity_anywhere(
    base: Checkpoint, tmp_path: Path, init: str, position: Any
) -> None:
    plan = plan_grow(base, Growth(7, init, drop_last=0, zero_init=True, position=position))
    child = write_checkpoint(plan, tmp_path / "child.st")
    assert torch.equal(output(load(child)), output(load(base.path)))


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_computed_blocks(tmp_path: Path, dtype: str) -> None:
    parent = open_checkpoint(synthetic_checkpoint(tmp_path / "parent.st", dtype=dtype))
    before = load_file(parent.path)
    name = "transformer_blocks.{}.attn1.to_q.weight".format
    plan = plan_grow(parent, Growth(7, "interpolate", position="interleave"))
    mixed = load_file(write_checkpoint(plan, tmp_path / "m.st"))
    half = 0.5 * before[name(0)].float() + 0.5 * before[name(1)].float()
    assert torch.equal(mixed[name(1)], half.to(before[name(0)].dtype))
    assert torch.equal(mixed[name(2)], before[name(1)])
    plan = plan_grow(parent, Growth(8, "progressive", sigma_noise=0.5))
    noisy = load_file(write_checkpoint(plan, tmp_path / "p.st"))
    for steps in (1, 4):
        noise = (noisy[name(3 + steps)].float() - before[name(3)].float()).std().item()
        assert noise == pytest.approx(0.5 * steps**0.5, rel=0.15)


def test_qk_norms_are_inserted_with_weights_of_one(tmp_path: Path) -> None:
    old = open_checkpoint(synthetic_checkpoint(tmp_path / "old.st", {**TINY, "qk_norm": None}))
    for plan, blocks in ((plan_qk_norm(old), 4), (plan_grow(old, Growth(6, qk_norm=True)), 6)):
        path = write_checkpoint(plan, tmp_path / f"{blocks}.st")
        assert open_checkpoint(path).config["qk_norm"] == "rms_norm_across_heads"
        model = load(path)
        assert len(model.transformer_blocks) == blocks
        for block in model.transformer_blocks:
            assert all((norm.weight == 1).all() for norm in (block.attn1.norm_q, block.attn2.norm_k))
        for key, tensor in load_file(old.path).items():
            if not key.startswith(("transformer_blocks.2", "transformer_blocks.3")):
                assert torch.equal(load_file(path)[key], tensor)
    with pytest.raises(UsageError, match="already"):
        plan_qk_norm(open_checkpoint(tmp_path / "4.st"))


def test_new_blocks_have_the_reference_statistics(tmp_path: Path) -> None:
    wide = {**TINY, "attention_head_dim": 64, "cross_attention_head_dim": 64, "cross_attention_dim": 128}
    parent = open_checkpoint(synthetic_checkpoint(tmp_path / "parent.st", wide))
    grown = load_file(write_checkpoint(plan_grow(parent, Growth(6)), tmp_path / "child.st"))
    kept = load_file(parent.path)
    for name, tensor in kept.items():  # the paper drops the last two of the pre-trained blocks
        if not name.startswith(("transformer_blocks.2", "transformer_blocks.3")):
            assert torch.equal(grown[name], tensor), name
    for index in (2, 3, 4, 5):
        block = {
            n.split(".", 2)[2]: t for n, t in grown.items() if n.startswith(f"transformer_blocks.{index}.")
        }
        for name, tensor in block.items():
            if name.startswith(("attn1.to_out", "attn2.to_out", "ff.conv_point")):
                assert not tensor.any(), name
            elif "norm_" in name:
                assert (tensor == 1).all(), name
            elif name.startswith("attn") and name.endswith("bias"):
                assert not tensor.any(), name
            else:
                sigma = 0.2 if "conv_depth" in name else 0.02
                tolerance = (
                    5 * sigma / (2 * tensor.numel()) ** 0.5
                )  # five standard errors of a standard deviation
                assert abs(tensor.std().item() - sigma) < tolerance, name
                assert abs(tensor.mean().item()) < 5 * sigma / tensor.numel() ** 0.5, name


def test_a_new_tensor_is_a_function_of_seed_and_name_alone(base: Checkpoint, tmp_path: Path) -> None:
    def new(name: str, **options: Any) -> dict[str, torch.Tensor]:
        return load_file(write_checkpoint(plan_grow(base, Growth(**options)), tmp_path / name))

    deep, shallow = new("a.st", to=9, seed=7), new("b.st", to=6, seed=7)
    other = new("c.st", to=6, seed=8)
    key = "transformer_blocks.4.attn1.to_q.weight"
    assert torch.equal(deep[key], shallow[key])
    assert not torch.equal(other[key], shallow[key])
    assert not torch.equal(shallow["transformer_blocks.5.attn1.to_q.weight"], shallow[key])
    single = write_checkpoint(plan_grow(base, Growth(to=9, seed=7)), tmp_path / "d.st", workers=1)
    assert single.read_bytes() == (tmp_path / "a.st").read_bytes()


def test_new_blocks_in_bf16_are_the_fp32_ones_rounded(tmp_path: Path) -> None:
    def new(dtype: str) -> dict[str, torch.Tensor]:
        parent = open_checkpoint(synthetic_checkpoint(tmp_path / f"{dtype}.st", dtype=dtype))
        return load_file(write_checkpoint(plan_grow(parent, Growth(6)), tmp_path / f"child-{dtype}.st"))

    exact, bf16, fp16 = new("F32"), new("BF16"), new("F16")
    for name, tensor in exact.items():
        assert torch.equal(bf16[name], tensor.to(torch.bfloat16)), name
        assert torch.equal(fp16[name], tensor.to(torch.float16)), name


def test_the_same_command_gives_the_same_bytes(base: Checkpoint, tmp_path: Path) -> None:
    for name in ("one.st", "two.st"):
        write_checkpoint(plan_grow(base, Growth(8)), tmp_path / name)
    assert (tmp_path / "one.st").read_bytes() == (tmp_path / "two.st").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        {"to": 3},
        {"to": 4, "drop_last": 0},
        {"to": 9, "drop_last": 4},
        {"to": 9, "drop_last": -1},
        {"to": 9, "init": "magic"},
        {"to": 9, "sigma": float("nan")},
        {"to": 9, "init": "cyclic", "sigma": 0.5},
        {"to": 9, "sigma_noise": 0.5},
    ],
)
def test_impossible_growth_is_a_usage_error(base: Checkpoint, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        plan_grow(base, Growth(**options))


def test_summary_counts_what_the_file_then_holds(base: Checkpoint, tmp_path: Path) -> None:
    plan = plan_grow(base, Growth(9))
    summary = plan.summary()
    child = open_checkpoint(write_checkpoint(plan, tmp_path / "child.st"))
    assert (summary.blocks_before, summary.blocks_after) == (4, 9)
    assert summary.parameters_after == child.num_parameters
    assert summary.bytes_after == child.nbytes
    assert summary.bytes_copied + summary.bytes_generated + summary.bytes_zero == child.nbytes
    assert 1.5 < summary.flops_after / summary.flops_before < 9 / 4


def test_a_warning_where_queries_and_keys_are_not_normalised(tmp_path: Path) -> None:
    old = open_checkpoint(synthetic_checkpoint(tmp_path / "old.st", {**TINY, "qk_norm": None}))
    assert any("QK" in line for line in plan_grow(old, Growth(9)).warnings)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"qk_norm": None},
        {"qk_norm": "rms_norm"},
        {"qk_norm": "layer_norm_across_heads"},
        {"guidance_embeds": True},
        {"attention_bias": True, "norm_elementwise_affine": True, "patch_size": 2, "interpolation_scale": 1},
        {"num_cross_attention_heads": 3, "cross_attention_dim": 20, "mlp_ratio": 2.3, "out_channels": None},
    ],
)
def test_expected_tensors_are_those_of_the_class(change: dict[str, Any]) -> None:
    config = {**TINY, **change}
    with torch.device("meta"):
        model = SanaTransformer2DModel.from_config(config)
    assert expected_tensors(config) == {
        name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
    }


def test_surgery_imports_no_torch(base: Checkpoint, tmp_path: Path) -> None:
    code = f"""
import sys
from sanactl.checkpoint.open import open_checkpoint
from sanactl.checkpoint.write import write_checkpoint
from sanactl.surgery.grow import Growth, plan_grow
from sanactl.surgery.prune import plan_prune
base = open_checkpoint({str(base.path)!r})
assert base.digest and "numpy" not in sys.modules
write_checkpoint(plan_prune(base, [0, 1]), {str(tmp_path / "p.st")!r})
assert "numpy" not in sys.modules
write_checkpoint(plan_grow(base, Growth(9)), {str(tmp_path / "g.st")!r})
import json; print(json.dumps(sorted({{"torch", "transformers", "diffusers", "safetensors"}} & set(sys.modules))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
