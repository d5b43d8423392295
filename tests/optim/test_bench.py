"""The side-by-side measurement, on a small block: its rows, and what must hold between them."""

from __future__ import annotations

import math

import pytest

from sanactl.errors import UsageError
from sanactl.optim.bench import CONTENDERS, block_shapes, run


def test_two_blocks_of_sana_are_156_million_parameters() -> None:
    assert 2 * sum(map(math.prod, block_shapes("1.6b"))) == pytest.approx(156e6, rel=0.01)


def test_the_shapes_are_those_of_the_diffusers_model() -> None:
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.SanaTransformer2DModel(
        num_layers=1, num_attention_heads=6, attention_head_dim=32, num_cross_attention_heads=2,
        cross_attention_head_dim=96, cross_attention_dim=192, qk_norm="rms_norm_across_heads",
    )  # fmt: skip
    found = [tuple(p.shape) for p in model.transformer_blocks[0].parameters()]
    assert sorted(found) == sorted(block_shapes("tiny"))


@pytest.mark.timeout(900)
def test_rows() -> None:
    names = [name for name in CONTENDERS if "bitsandbytes" not in name]
    rows = {row["optimizer"]: row for row in run("tiny", 1, steps=1, optimizers=names)}
    assert list(rows) == names
    for name, row in rows.items():
        if "error" in row:
            assert name in ("adamw8bit-torchao", "came-pytorch"), row
            assert "ModuleNotFoundError" in row["error"]
            continue
        assert row["step_ms"] >= row["step_ms_min"] > 0
        assert row["parameters"] == sum(map(math.prod, block_shapes("tiny")))
    state = {name: row["state_bytes_per_parameter"] for name, row in rows.items() if "error" not in row}
    assert state["adamw"] == pytest.approx(8, abs=0.01)
    assert state["came"] == pytest.approx(4, abs=0.2)
    assert (
        state["came8bit"] <= 1.3
    )  # a small block has many small tensors; test_state holds the 1.03 of a large matrix


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown model 'xl'"):
        list(run("xl"))
    with pytest.raises(UsageError, match="unknown optimizer 'sgd'"):
        list(run(optimizers=["sgd"]))
    with pytest.raises(UsageError, match="blocks is 0"):
        list(run(blocks=0))
