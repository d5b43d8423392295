"""The Triton kernels against their torch twin; run by `test_triton`.

On a GPU where there is one, else on the CPU in Triton's interpreter (TRITON_INTERPRET=1).
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sanactl.optim import CAME, CAME8bit, tiled, triton_kernels, update
from sanactl.optim.blockwise import SCHEMES, Scheme, dequantize, quantize
from sanactl.optim.moment import Moment
from sanactl.optim.rounding import stochastic_bf16
from sanactl.optim.sharded import part_of

SHAPES = [(70, 150), (128, 64), (1, 300), (300, 1), (2, 2)]
BLOCK = 256
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


def gradient(shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    g[:, shape[1] // 2 :] *= 1e-4
    g[shape[0] // 2] = 0
    return g.to(DEVICE, dtype)


def moment(shape: tuple[int, int], scheme: Scheme | None) -> Moment:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    if scheme is None:
        return Moment(values)
    q = quantize(values, BLOCK, scheme)
    return Moment(q.codes, q.scale, q.offset, BLOCK, scheme)


def factors(shape: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    row, col = (torch.rand(n, generator=generator).to(DEVICE) for n in shape)
    return row, col


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_square_sums(shape: tuple[int, int], dtype: torch.dtype) -> None:
    g = gradient(shape, dtype)
    for ours, twin in zip(triton_kernels.square_sums(g), tiled.square_sums(g), strict=True):
        torch.testing.assert_close(ours, twin, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("clip", [1.0, 1e-2, 1e4])
@pytest.mark.parametrize("scheme", [None, *SCHEMES])
@pytest.mark.parametrize("shape", SHAPES)
def test_residual_sums(shape: tuple[int, int], scheme: Scheme | None, clip: float) -> None:
    g, m, (row, col) = gradient(shape), moment(shape, scheme), factors(shape, 2)
    ours, twin = (x.residual_sums(g, m, row, col, clip, part_of(g)) for x in (triton_kernels, tiled))
    for a, b in zip(ours, twin, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_residual_sums_where_the_moment_has_settled() -> None:
    """u = m up to 1e-3, clipped: the expanded square loses digits, by no more than 1e-6 of u^2."""
    g, row, col = (torch.ones(shape, device=DEVICE) for shape in ((70, 150), 70, 150))
    k, rows, cols = triton_kernels.residual_sums(g, Moment(0.8 * 1.001 * g), row, col, 0.8, part_of(g))
    assert k.item() == pytest.approx(0.8)
    torch.testing.assert_close(rows / 150, 6.4e-7 * row, rtol=0, atol=1e-6)
    torch.testing.assert_close(cols / 70, 6.4e-7 * col, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", [None, 12345, -7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scheme", [None, *SCHEMES])
@pytest.mark.parametrize("shape", SHAPES)
def test_apply(shape: tuple[int, int], scheme: Scheme | None, dtype: torch.dtype, seed: int | None) -> None:
    if seed is not None and dtype != torch.bfloat16:
        pytest.skip("stochastic rounding is for bf16")
    g, u, s = gradient(shape, dtype), factors(shape, 3), factors(shape, 4)
    results = []
    for passes in (triton_kernels, tiled):
        p, m = gradient(shape, dtype).clone(), moment(shape, scheme)
        passes.apply(p, g, m, u, s, 0.9, 0.99, seed)
        results.append((p, m))
    (p, m), (q, n) = results
    # Neighbours differ by 2^-8 (bf16), 2^-11 (fp16): a rounding to the other side is all that is allowed.
    rtol, share = {torch.float32: (2e-6, 1.0), torch.bfloat16: (2**-7, 0.99), torch.float16: (2**-10, 0.99)}[
        dtype
    ]
    torch.testing.assert_close(p, q, rtol=rtol, atol=2e-7)
    assert dtype == torch.float32 or (p == q).float().mean() >= share
    if scheme is None:
        torch.testing.assert_close(m.values, n.values, rtol=1e-6, atol=1e-7)
    else:
        assert m.scale is not None
        assert n.scale is not None
        torch.testing.assert_close(m.scale, n.scale, rtol=1e-5, atol=0)
        differ = (m.values.int() - n.values.int()).abs()
        assert differ.max() <= 1
        assert (differ > 0).float().mean() < 0.01


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_kernel_writes_what_the_reference_writes(scheme: Scheme) -> None:
    """With beta 1 the moment is read and written again: its values must not move by more than a level."""
    shape = (20, 100)
    p, g = torch.zeros(2, *shape, device=DEVICE)
    m = moment(shape, scheme)
    before = dequantize(quantize(moment(shape, None).values, BLOCK, scheme), BLOCK, scheme)
    triton_kernels.apply(p, g, m, factors(shape, 1), factors(shape, 2), 1.0, 1.0, None)
    again = quantize(before, BLOCK, scheme)
    assert (m.values.int() - again.codes.int()).abs().max() <= 1
    if scheme != "linear":
        assert torch.equal(m.values[before == 0], again.codes[before == 0])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_shard_whose_first_and_last_block_are_cut(scheme: Scheme) -> None:
    """37 rows of 70 values after 11 others: its blocks begin 770 values before, and others write into both ends."""
    shape, rows, cols = (37, 70), 37, 70
    g, u, s = gradient(shape), factors(shape, 3), factors(shape, 4)
    whole, edges = moment((11 + rows + 5, cols), scheme), torch.tensor([[-9.0, -8.0], [8.0, 9.0]]).to(DEVICE)
    first, last = 11 * cols // BLOCK, -(-48 * cols // BLOCK)
    assert whole.scale is not None
    results = []
    for passes in (triton_kernels, tiled):
        offset = None if whole.offset is None else whole.offset[first:last].clone()
        scale = whole.scale[first:last].clone()
        m = Moment(whole.values[11:48].clone(), scale, offset, BLOCK, scheme, 11, edges)
        sums = passes.residual_sums(g, m, *u, 1.0, part_of(g))
        p = gradient(shape).clone()
        passes.apply(p, g, m, u, s, 0.9, 0.99, None)
        assert m.scale is not None
        results.append((*sums, p, m.scale, m.values.float()))
    for a, b in zip(*(r[:-1] for r in results), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=1e-6)
    codes, twin = (r[-1] for r in results)
    assert (codes - twin).abs().max() <= 1
    assert ((codes - twin) != 0).float().mean() < 0.01
    # The edges are what makes the first and the last scale large.
    assert results[0][-2][[0, -1]].min() > 1.5 * results[0][-2][1:-1].max()


def test_noise_is_that_of_the_twin() -> None:
    ones = torch.ones(64, 64, device=DEVICE)
    p, row = ones.bfloat16(), ones[0].clone()
    m = Moment(ones * -(2.0**-9))
    triton_kernels.apply(p, 0 * ones, m, (row, row), (row, row), 1.0, 1.0, 99)
    assert torch.equal(p, stochastic_bf16(ones + 2**-9, 99))
    assert 0.2 < (p > 1).float().mean() < 0.3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [None, *({"scheme": scheme} for scheme in SCHEMES), {"maximize": True}])
def test_whole_steps(
    options: dict[str, Any] | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four steps of the optimizer on kernels and on the twin, dead rows and columns among them."""
    found = []
    for passes in (triton_kernels, tiled):
        monkeypatch.setattr(update, "_passes", lambda p, g, m, passes=passes: passes)
        start = torch.randn(90, 70, generator=torch.Generator().manual_seed(5)).to(DEVICE, dtype)
        p = nn.Parameter(start.clone())
        if options is None:
            optimizer: CAME = CAME([p], lr=1e-3)
        else:
            optimizer = CAME8bit([p], lr=1e-3, block_size=BLOCK, min_8bit_size=0, **options)
        for step in range(4):
            p.grad = torch.randn(90, 70, generator=torch.Generator().manual_seed(step)).to(DEVICE, dtype)
            p.grad[4], p.grad[:, 60:] = 0, 0
            optimizer.step()
        found.append(((p.detach() - start).float(), start))
    (ours, start), (twin, _) = found
    live = torch.ones(90, 70, dtype=torch.bool, device=DEVICE)
    live[4], live[:, 60:] = False, False
    if options != {
        "scheme": "linear"
    }:  # elsewhere dead entries do not move; in min-max they follow rounding noise
        assert not ours[~live].any()
        assert not twin[~live].any()
    error = (ours - twin)[live].square().mean().sqrt() / twin[live].square().mean().sqrt()
    assert error < (1e-4 if options is None and dtype == torch.float32 else 0.02)


def test_what_the_kernels_leave_to_torch() -> None:
    x = torch.zeros(8, 6)
    assert triton_kernels.can_step(x, x, None)
    assert not triton_kernels.can_step(x.t(), x.t(), None)
    assert not triton_kernels.can_step(x.double(), x, None)
    assert not triton_kernels.can_step(x, x, Moment(x, block=triton_kernels.LARGEST_BLOCK + 1))
