"""Conversion between layouts is byte for byte, there and back, for every pair."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SanaTransformer2DModel
from diffusers.loaders.single_file_utils import convert_sana_transformer_to_diffusers
from safetensors.torch import load_file, save_file

from sanactl.bench.synthetic import TINY, synthetic_checkpoint
from sanactl.checkpoint.open import open_checkpoint
from sanactl.checkpoint.write import write_checkpoint
from sanactl.errors import InputError, UsageError
from sanactl.surgery.convert import plan_convert

LAYOUTS = {"st": "x.st", "folder": "x", "pth": "x.pth"}


def state(path: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors by the field's own loaders."""
    if path.suffix == ".pth":
        return torch.load(path, weights_only=True)["state_dict"]
    if path.is_dir():
        return SanaTransformer2DModel.from_pretrained(path).state_dict()
    return load_file(path)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and torch.equal(one[name].view(torch.uint8), other[name].view(torch.uint8))
        for name in one
    )


def convert(source: Path, target: Path, **options: Any) -> Path:
    return write_checkpoint(plan_convert(open_checkpoint(source, native=True), target, **options), target)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(LAYOUTS, 2)))
def test_there_and_back(tmp_path: Path, first: str, second: str, dtype: str) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    base = synthetic_checkpoint(tmp_path / "base.st", dtype=dtype)
    start = convert(base, tmp_path / "a" / LAYOUTS[first])
    middle = convert(start, tmp_path / "b" / LAYOUTS[second])
    back = convert(middle, tmp_path / "c" / LAYOUTS[first])
    if dtype == "F32" or not start.is_dir():  # from_pretrained would cast
        assert same(state(start), state(back))
    one, other = open_checkpoint(start, native=True), open_checkpoint(back, native=True)
    assert one.config == other.config
    if start.is_file():
        assert start.read_bytes() == back.read_bytes()
    else:
        for name in os.listdir(start):
            assert (start / name).read_bytes() == (back / name).read_bytes(), name


def test_from_single_file_loads_a_safetensors_with_a_config_folder(tmp_path: Path) -> None:
    base = synthetic_checkpoint(tmp_path / "base.safetensors")
    folder = convert(base, tmp_path / "folder")
    model = SanaTransformer2DModel.from_single_file(str(base), config=str(folder))
    assert same(model.state_dict(), load_file(base))


def test_metadata_survives_every_layout(tmp_path: Path) -> None:
    plan = plan_convert(open_checkpoint(synthetic_checkpoint(tmp_path / "base.st")), tmp_path / "a.st")
    plan.components = {"vae": {"source": "builtin:shapes", "subfolder": "vae"}}
    plan.sampling = {"steps": 20}
    plan.lineage = [{"command": "grow", "blocks": 4}]
    at = write_checkpoint(plan, tmp_path / "a.st")
    for name in ("b.pth", "c", "d.st"):
        at = convert(at, tmp_path / name)
        opened = open_checkpoint(at, native=True)
        assert (opened.components, opened.sampling, opened.lineage) == (
            plan.components,
            plan.sampling,
            plan.lineage,
        )


def test_the_native_names_are_those_that_diffusers_converts(tmp_path: Path) -> None:
    # diffusers' own conversion knows no qk norms and insists on the two tensors that it then drops
    base = synthetic_checkpoint(tmp_path / "base.st", {**TINY, "qk_norm": None})
    native = state(convert(base, tmp_path / "x.pth"))
    native |= {"pos_embed": torch.zeros(1), "y_embedder.y_embedding": torch.zeros(1)}
    assert same(convert_sana_transformer_to_diffusers(native), load_file(base))


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """A native state dict as the reference code saves it: SANA 0.6B with two blocks, fused, with its extra tensors."""
    config = {
        **TINY, "num_attention_heads": 36, "attention_head_dim": 32, "num_layers": 2, "in_channels": 8,
        "out_channels": 8, "num_cross_attention_heads": 16, "cross_attention_head_dim": 72, "cross_attention_dim": 1152, "mlp_ratio": 0.25,
    }  # fmt: skip
    model = SanaTransformer2DModel.from_config(config)
    native: dict[str, torch.Tensor] = {}
    tensors = dict(model.state_dict())

    def move(old: str, *new: str) -> None:
        for leaf in ("weight", "bias"):
            parts = [tensors.pop(f"{name}.{leaf}") for name in new if f"{name}.{leaf}" in tensors]
            if parts:
                native[f"{old}.{leaf}"] = torch.cat(parts)

    for index in range(2):
        block, target = f"transformer_blocks.{index}", f"blocks.{index}"
        native[f"{target}.scale_shift_table"] = tensors.pop(f"{block}.scale_shift_table")
        move(f"{target}.attn.qkv", *(f"{block}.attn1.to_{part}" for part in "qkv"))
        move(f"{target}.cross_attn.q_linear", f"{block}.attn2.to_q")
        move(f"{target}.cross_attn.kv_linear", f"{block}.attn2.to_k", f"{block}.attn2.to_v")
        for old, new in (("attn", "attn1"), ("cross_attn", "attn2")):
            move(f"{target}.{old}.proj", f"{block}.{new}.to_out.0")
            move(f"{target}.{old}.q_norm", f"{block}.{new}.norm_q")
            move(f"{target}.{old}.k_norm", f"{block}.{new}.norm_k")
        for part in ("inverted", "depth", "point"):
            move(f"{target}.mlp.{part}_conv.conv", f"{block}.ff.conv_{part}")
    for old, new in {
        "x_embedder.proj": "patch_embed.proj", "y_embedder.y_proj.fc1": "caption_projection.linear_1",
        "y_embedder.y_proj.fc2": "caption_projection.linear_2", "t_block.1": "time_embed.linear",
        "t_embedder.mlp.0": "time_embed.emb.timestep_embedder.linear_1", "final_layer.linear": "proj_out",
        "t_embedder.mlp.2": "time_embed.emb.timestep_embedder.linear_2", "attention_y_norm": "caption_norm",
    }.items():  # fmt: skip
        move(old, new)
    native["final_layer.scale_shift_table"] = tensors.pop("scale_shift_table")
    assert not tensors, list(tensors)
    native |= {"pos_embed": torch.rand(1, 64, 1152), "y_embedder.y_embedding": torch.rand(300, 12)}
    return native


def test_a_published_native_file_opens_with_its_config_inferred(
    tmp_path: Path, published: dict[str, torch.Tensor]
) -> None:
    native = published
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4}]}
    torch.save({"epoch": 3, "state_dict": native, "optimizer": optimizer}, tmp_path / "sana.pth")
    source = open_checkpoint(tmp_path / "sana.pth", native=True)
    assert (source.num_blocks, source.config["num_attention_heads"], source.config["sample_size"]) == (
        2,
        36,
        8,
    )
    assert source.config["mlp_ratio"] == 0.25
    assert source.config["qk_norm"] == "rms_norm_across_heads"
    plan = plan_convert(source, tmp_path / "x.st")
    assert "pos_embed, y_embedder.y_embedding" in plan.warnings[0]
    model = SanaTransformer2DModel.from_config(dict(source.config))
    model.load_state_dict(load_file(write_checkpoint(plan, tmp_path / "x.st")), strict=True)
    back = state(convert(tmp_path / "x.st", tmp_path / "back.pth"))
    kept = {
        name: tensor for name, tensor in native.items() if name not in ("pos_embed", "y_embedder.y_embedding")
    }
    assert same(back, kept)


def test_a_native_safetensors_file_opens_too(tmp_path: Path, published: dict[str, torch.Tensor]) -> None:
    native = published
    save_file(
        {f"model.diffusion_model.{name}": t for name, t in native.items()}, tmp_path / "comfy.safetensors"
    )
    assert open_checkpoint(tmp_path / "comfy.safetensors", native=True).num_blocks == 2
    with pytest.raises(InputError, match="native layout"):
        open_checkpoint(tmp_path / "comfy.safetensors")


@pytest.mark.parametrize(
    ("dtype", "kind"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)]
)
@pytest.mark.parametrize("target", ["x.st", "x.pth"])
def test_a_cast_rounds_as_torch_does(tmp_path: Path, dtype: str, kind: torch.dtype, target: str) -> None:
    base = synthetic_checkpoint(tmp_path / "base.st")
    direct = state(convert(base, tmp_path / f"plain-{target}"))
    cast = convert(base, tmp_path / target, dtype=dtype)
    assert same(state(cast), {name: tensor.to(kind) for name, tensor in direct.items()})
    assert [e["command"] for e in open_checkpoint(cast, native=True).lineage] == (
        [] if dtype == "fp32" else ["convert"]
    )


def test_risky_casts_warn_or_fail(tmp_path: Path) -> None:
    old = open_checkpoint(synthetic_checkpoint(tmp_path / "old.st", {**TINY, "qk_norm": None}, "F16"))
    assert "issue 47" in plan_convert(old, "x.st", "bf16").warnings[0]
    assert "issue 65" in plan_convert(old, "x.st", "fp16").warnings[0]
    tensors = load_file(synthetic_checkpoint(tmp_path / "base.st"))
    tensors["proj_out.bias"][0] = 70000.0
    metadata = open_checkpoint(tmp_path / "base.st").metadata
    save_file(tensors, tmp_path / "large.st", metadata)
    with pytest.raises(InputError, match="fp16 cannot"):
        convert(tmp_path / "large.st", tmp_path / "x.st", dtype="fp16")
    assert not (tmp_path / "x.st").exists()
    with pytest.raises(UsageError):
        plan_convert(old, "x.st", "int8")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"norm_elementwise_affine": True}, "norm2.weight"),
        ({"qk_norm": "rms_norm"}, "rms_norm"),
        ({"num_cross_attention_heads": 3}, "cross-attention 24"),
    ],
)
def test_what_the_native_layout_cannot_hold_is_named(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    odd = open_checkpoint(synthetic_checkpoint(tmp_path / "odd.st", {**TINY, **change}))
    with pytest.raises(InputError, match=named):
        plan_convert(odd, "x.pth")


class _Bomb:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    torch.save({"state_dict": {"x": torch.ones(1)}, "extra": _Bomb(proof)}, tmp_path / "bomb.pth")
    with pytest.raises(InputError, match=r"asks to run posix\.system"):
        open_checkpoint(tmp_path / "bomb.pth", native=True)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(_Bomb(proof)))
    with pytest.raises(InputError, match="not a PyTorch zip"):
        open_checkpoint(tmp_path / "plain.pth", native=True)
    assert not proof.exists()


def test_damaged_pth_files_are_input_errors(tmp_path: Path) -> None:
    good = convert(synthetic_checkpoint(tmp_path / "base.st"), tmp_path / "good.pth")
    data = good.read_bytes()
    for cut in range(0, len(data), len(data) // 23):
        (tmp_path / "cut.pth").write_bytes(data[:cut])
        with pytest.raises(InputError):
            open_checkpoint(tmp_path / "cut.pth", native=True)
    with zipfile.ZipFile(good) as archive:
        index = archive.read("archive/data.pkl")
    for position in range(0, len(index), max(1, len(index) // 211)):
        damaged = index[:position] + bytes([index[position] ^ 0x55]) + index[position + 1 :]
        at = data.index(index)
        (tmp_path / "bad.pth").write_bytes(data[:at] + damaged + data[at + len(index) :])
        with contextlib.suppress(InputError):  # never anything else
            open_checkpoint(tmp_path / "bad.pth", native=True)


def test_a_pth_without_the_flag_points_to_convert(tmp_path: Path) -> None:
    good = convert(synthetic_checkpoint(tmp_path / "base.st"), tmp_path / "good.pth")
    with pytest.raises(InputError, match="sanactl convert"):
        open_checkpoint(good)
