"""The 8-bit codes: what comes back, how far off, and that the in-place form writes the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sanactl.errors import UsageError
from sanactl.optim.blockwise import (
    SCHEMES,
    Quantized,
    Scheme,
    dequantize,
    dynamic_map,
    dynamic_midpoints,
    quantize,
)
from sanactl.optim.moment import Moment, Scratch, _dynamic_codes


def round_trip(x: torch.Tensor, block: int, scheme: Scheme) -> torch.Tensor:
    return dequantize(quantize(x, block, scheme), block, scheme)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 300),
    block=st.integers(1, 64),
    scheme=st.sampled_from(SCHEMES),
    scale=st.sampled_from([1e-30, 1e-10, 1.0, 1e20, 1e37]),
    shift=st.sampled_from([-3.0, 0.0, 3.0]),
    seed=st.integers(0, 99),
)
def test_error_is_at_most_half_a_level(
    n: int, block: int, scheme: Scheme, scale: float, shift: float, seed: int
) -> None:
    x = (torch.randn(n, generator=torch.Generator().manual_seed(seed)) + shift) * scale
    error = (round_trip(x, block, scheme) - x).abs()
    for at in range(0, n, block):
        b = x[at : at + block]
        if scheme == "linear":
            bound = 0.5 * (b.max() - b.min()) / 255
        elif (
            scheme == "zero"
        ):  # the zero point is rounded too: an end of the range may be clamped by half a level
            bound = (b.max().clamp(min=0) - b.min().clamp(max=0)) / 255
        else:
            bound = (
                0.0036 / 0.5 * b.abs().max()
            )  # the widest gap: 0.0141 of the largest, between the top levels
        assert (error[at : at + block] <= bound * (1 + 1e-3) + b.abs().max() * 1e-6 + 1e-35).all()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("value", [0.0, 1.0, -2.5e-3, 1e30, 1e-38])
def test_constant_blocks_come_back(scheme: Scheme, value: float) -> None:
    x = torch.full((100,), value)
    # The dynamic map ends at -0.993: a constant negative block is 0.7 % off.
    rtol = 0.0071 if scheme == "dynamic" and value < 0 else 1e-6
    torch.testing.assert_close(round_trip(x, 32, scheme), x, rtol=rtol, atol=1e-34)
    assert torch.equal(round_trip(torch.zeros(100), 32, scheme), torch.zeros(100))


@pytest.mark.parametrize("scheme", ["zero", "dynamic"])
def test_zero_comes_back_as_zero(scheme: Scheme) -> None:
    for seed in range(50):
        x = torch.randn(64, generator=torch.Generator().manual_seed(seed)) + seed / 10 - 2
        x[::7] = 0
        back = round_trip(x, 64, scheme)
        assert (back[::7] == 0).all()


def test_linear_is_equation_1_and_has_no_zero() -> None:
    x = torch.tensor([-1.0, 0.0, 0.3, 1.1])
    q = quantize(x, 4, "linear")
    assert q.codes.tolist() == [0, 121, 158, 255]  # round((x - min) / (max - min) * 255)
    assert q.offset is not None
    assert q.offset.item() == -1
    assert dequantize(q, 4, "linear")[1].item() != 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_empty_and_single_values(scheme: Scheme) -> None:
    assert round_trip(torch.zeros(0), 8, scheme).shape == (0,)
    assert round_trip(torch.tensor([[3.0]]), 8, scheme).item() == pytest.approx(3.0, rel=1e-6)


def test_dynamic_map_is_that_of_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    assert torch.equal(dynamic_map(torch.device("cpu")), functional.create_dynamic_map())


def test_dynamic_table_agrees_with_binary_search() -> None:
    levels, midpoints = dynamic_map(torch.device("cpu")), dynamic_midpoints(torch.device("cpu"))
    x = torch.cat(
        [
            torch.linspace(-1, 1, 20001),
            torch.logspace(-12, 0, 5001),
            -torch.logspace(-12, 0, 5001),
            levels,
            midpoints,
            torch.nextafter(midpoints, torch.tensor(2.0)),
            torch.nextafter(midpoints, torch.tensor(-2.0)),
        ]
    )
    assert torch.equal(_dynamic_codes(x).int(), torch.bucketize(x, midpoints).int())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("rows", "cols", "block"), [(64, 96, 2048), (37, 70, 512), (3, 5, 2048), (50, 64, 10 * 64), (9, 1, 4)]
)
def test_tiles_write_what_the_reference_writes(scheme: Scheme, rows: int, cols: int, block: int) -> None:
    x = torch.randn(rows, cols, generator=torch.Generator().manual_seed(1)) * 1e-3
    x[: rows // 3] = 0
    blocks = -(-x.numel() // block)
    offset = {"linear": torch.empty(blocks), "zero": torch.empty(blocks, dtype=torch.uint8)}.get(scheme)
    m = Moment(torch.empty(rows, cols, dtype=torch.uint8), torch.empty(blocks), offset, block, scheme)
    tiles = m.tiles(1)
    assert all(last == rows or last * cols % block == 0 for _, last in tiles)
    back = torch.empty(rows, cols)
    for first, last in tiles:
        m.write(first, last, x[first:last].clone(), Scratch(*torch.empty(3, last - first, cols)).c)
        m.read(first, last, back[first:last])
    wanted = quantize(x, block, scheme)
    assert torch.equal(m.scale, wanted.scale)
    # The one sum in place of two may round a tie the other way: one level, rarely.
    differ = (m.values.int() - wanted.codes.int()).abs()
    assert differ.max() <= 1
    assert (differ > 0).float().mean() <= 0.001
    assert torch.equal(back, dequantize(Quantized(m.values, m.scale, m.offset), block, scheme))


def test_bad_options_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown quantization scheme 'nf4'"):
        quantize(torch.ones(3), 2, "nf4")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="block_size is 0"):
        quantize(torch.ones(3), 0, "zero")
