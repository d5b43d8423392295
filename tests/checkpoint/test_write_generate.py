"""Values that are computed: their distribution, their rounding, and that nothing but seed and name decides them."""

from __future__ import annotations

import hashlib
from statistics import NormalDist

import numpy as np
import pytest

from sanactl.checkpoint.generate import compute, from_bytes, to_bytes
from sanactl.checkpoint.open import TensorRef
from sanactl.checkpoint.plan import Blend, Bytes, Normal, Ones, PlannedTensor
from sanactl.errors import InputError
from sanactl.files.safetensors import DTYPE_BYTES

TILE = 1 << 18  # values: a unit for sample sizes, no property of the generator


def read(spans: Bytes, start: int, count: int) -> bytes:
    raise AssertionError("nothing is to be read")


def computed(tensor: PlannedTensor, start: int = 0, count: int | None = None) -> bytes:
    count = tensor.shape[0] - start if count is None else count
    out = bytearray(count * DTYPE_BYTES[tensor.dtype])
    compute(tensor, start, memoryview(out), read)
    return bytes(out)


def values(
    dtype: str = "F32", sigma: float = 1.0, seed: int = 0, name: str = "x", tiles: float = 8
) -> np.ndarray:
    tensor = PlannedTensor(dtype, (int(tiles * TILE),), Normal(sigma, seed, name))
    return from_bytes(computed(tensor), dtype)


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


def test_no_stretch_of_values_comes_twice() -> None:
    drawn = np.concatenate([values("BF16", 0.02, name=name, tiles=4) for name in "xyz"])
    quads = drawn.astype(np.float32).view(np.uint32).reshape(-1, 4) >> 16
    words = (quads.astype(np.uint64) << np.array([48, 32, 16, 0], np.uint64)).sum(axis=1, dtype=np.uint64)
    # 786,432 quadruples, each of 2^40 or so: a stretch that came back would bring thousands of pairs
    assert words.size - np.unique(words).size < 20


def test_sizes_and_signs_of_neighbours_are_independent() -> None:
    one = values(tiles=8).astype(np.float64)
    limit = 5 / one.size**0.5
    for lag in (1, 2, 3, 4, 5, 8, 64, 4096, TILE, 2 * TILE):
        for of in (np.sign, np.abs, np.square):
            first, second = of(one[:-lag]), of(one[lag:])
            assert abs(np.corrcoef(first, second)[0, 1]) < limit * 8**0.5


@pytest.mark.parametrize("dtype", ["BF16", "F32", "F64"])
def test_any_range_is_that_of_the_whole(dtype: str) -> None:
    tensor = PlannedTensor(dtype, (TILE + 7,), Normal(1.0, 3, "ranges"))
    size = DTYPE_BYTES[dtype]
    whole = computed(tensor)
    for start in (0, 1, 2, 3, 4, 65_535, 65_536, 100_001, TILE):
        for count in (1, 3, 4, 65_536, 65_537, 130_000):
            count = min(count, TILE + 7 - start)
            assert computed(tensor, start, count) == whole[start * size : (start + count) * size], (
                start,
                count,
            )


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F64"])
def test_every_dtype_holds_the_same_values_rounded(dtype: str) -> None:
    exact = values(sigma=0.02, tiles=1)
    assert values(dtype, sigma=0.02, tiles=1).tobytes() == from_bytes(to_bytes(exact, dtype), dtype).tobytes()


def test_the_values_are_the_same_on_every_machine() -> None:
    # the promise that a seed names a tensor: change this only with a new major version
    drawn = values("BF16", 0.02, 7, "transformer_blocks.18.attn1.to_q.weight")
    digest = "7b886fd33fbbbf30ae474ab07adc467e9ba396ce4804de6a9c2ac6afa554b7ff"
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
    out = memoryview(bytearray(80))
    compute(tensor, 0, out, joined)
    assert (np.frombuffer(out) == data * 2.5).all()
    large = PlannedTensor("F16", (10,), Blend(((Bytes((ref,)), 10_000.0),)))
    with pytest.raises(InputError, match="fp16"):
        compute(large, 0, out[:20], joined)
    with pytest.raises(InputError, match="dtype I64"):
        compute(PlannedTensor("I64", (10,), Ones()), 0, out, joined)
