"""Values that are computed: their distribution, their rounding, and that nothing but seed and name decides them."""

from __future__ import annotations

import hashlib
from statistics import NormalDist

import numpy as np
import pytest

from sanactl.errors import InputError
from sanactl.io.checkpoint import TensorRef
from sanactl.io.ckpt_generate import TILE, from_bytes, tile_bytes, tile_count, to_bytes
from sanactl.io.ckpt_plan import Blend, Bytes, Normal, Ones, PlannedTensor


def read(spans: Bytes, start: int, count: int) -> bytes:
    raise AssertionError("nothing is to be read")


def values(
    dtype: str = "F32", sigma: float = 1.0, seed: int = 0, name: str = "x", tiles: int = 8
) -> np.ndarray:
    tensor = PlannedTensor(dtype, (tiles * TILE,), Normal(sigma, seed, name))
    return from_bytes(b"".join(tile_bytes(tensor, tile, read) for tile in range(tile_count(tensor))), dtype)


def test_the_distribution_is_normal() -> None:
    drawn = np.sort(values().astype(np.float64))
    cdf = np.array([NormalDist().cdf(value) for value in drawn[:: TILE // 64]])
    steps = np.arange(0, drawn.size, TILE // 64) / drawn.size
    assert np.abs(cdf - steps).max() < 1.95 / drawn.size**0.5  # Kolmogorov-Smirnov at 0.1 %
    assert abs(drawn.std() - 1) < 5 / (2 * drawn.size) ** 0.5
    assert abs((drawn**4).mean() - 3) < 5 * (96 / drawn.size) ** 0.5
    beyond = drawn.size * 2 * NormalDist().cdf(-4.3)  # behind the table's last cell
    assert abs((np.abs(drawn) > 4.3).sum() - beyond) < 5 * beyond**0.5
    assert np.abs(drawn).max() > 4.5


def test_neighbours_tiles_and_tensors_are_independent() -> None:
    one, other = values(tiles=2), values(name="y", tiles=2)
    limit = 5 / TILE**0.5
    for first, second in (
        (one[:-1], one[1:]),
        (one[:TILE], one[TILE:]),
        (one, other),
        (one, values(seed=1, tiles=2)),
    ):
        assert abs(np.corrcoef(first, second)[0, 1]) < limit


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F64"])
def test_every_dtype_holds_the_same_values_rounded(dtype: str) -> None:
    exact = values(sigma=0.02, tiles=1)
    assert values(dtype, sigma=0.02, tiles=1).tobytes() == from_bytes(to_bytes(exact, dtype), dtype).tobytes()


def test_the_values_are_the_same_on_every_machine() -> None:
    # the promise that a seed names a tensor: change this only with a new major version
    drawn = values("BF16", 0.02, 7, "transformer_blocks.18.attn1.to_q.weight")
    digest = "14b19e203466a8e9bdce158e9d511cdbdac305f32c21789ca613e376c5030d87"
    assert hashlib.sha256(drawn.tobytes()).hexdigest() == digest


def test_bf16_rounds_to_nearest_even() -> None:
    bits = np.array(
        [0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x7F7FFFFF, 0x7F800000, 0xFF800000], np.uint32
    )
    rounded = np.frombuffer(to_bytes(bits.view(np.float32), "BF16"), np.uint16)
    assert [hex(item) for item in rounded] == [
        "0x3f80",
        "0x3f82",
        "0x3f81",
        "0x3f80",
        "0x7f80",
        "0x7f80",
        "0xff80",
    ]
    nan = np.array([0x7FFFFFFF, 0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(from_bytes(to_bytes(nan, "BF16"), "BF16")).all()


def test_a_blend_reads_joined_spans_and_refuses_what_fp16_cannot_hold(tmp_path) -> None:
    data = np.arange(10, dtype=np.float32)

    def joined(spans: Bytes, start: int, count: int) -> bytes:
        return data.tobytes()[start : start + count]

    ref = TensorRef(tmp_path / "x", 0, 40, "F32", (10,))
    tensor = PlannedTensor("F64", (10,), Blend(((Bytes((ref,)), 0.5), (Bytes((ref,)), 2.0))))
    assert (from_bytes(tile_bytes(tensor, 0, joined), "F64") == data * 2.5).all()
    large = PlannedTensor("F16", (10,), Blend(((Bytes((ref,)), 10_000.0),)))
    with pytest.raises(InputError, match="fp16"):
        tile_bytes(large, 0, joined)
    with pytest.raises(InputError, match="dtype I64"):
        tile_bytes(PlannedTensor("I64", (10,), Ones()), 0, joined)
