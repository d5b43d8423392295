"""The Triton kernels against their torch twin; run by `test_triton`.

On a GPU where there is one, else on the CPU in Triton's interpreter (TRITON_INTERPRET=1). There a program takes some
milliseconds, so shapes are the smallest that have what they are for: a tile of whole and of cut rows, two columns of tiles,
and several blocks, the last one cut.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sanactl.bench import one_matrix
from sanactl.optim import CAME, CAME8bit, came, masked, tiled, triton_step
from sanactl.optim.blockwise import SCHEMES, Scheme, dequantize, quantize
from sanactl.optim.moment import Moment
from sanactl.optim.rounding import stochastic_bf16
from sanactl.optim.sharded import part_of

SHAPES = [(11, 150), (4, 272), (1, 300), (2, 2)]  # the second: even rows that are longer than a block
TALL = (258, 2)  # more rows than a tile has
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


@pytest.mark.parametrize(
    ("shape", "dtype"), [*((shape, torch.float32) for shape in [*SHAPES, TALL]), (SHAPES[0], torch.bfloat16)]
)
def test_square_sums(shape: tuple[int, int], dtype: torch.dtype) -> None:
    g = gradient(shape, dtype)
    for ours, twin in zip(one_matrix.square_sums(g), tiled.square_sums(g), strict=True):
        torch.testing.assert_close(ours, twin, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "scheme", "clip"),
    [
        *((SHAPES[0], scheme, 1e-2) for scheme in (None, *SCHEMES)),
        *((shape, "zero", 1e4) for shape in SHAPES),
        (TALL, "zero", 1.0),
    ],
)
def test_residual_sums(shape: tuple[int, int], scheme: Scheme | None, clip: float) -> None:
    g, m, (row, col) = gradient(shape), moment(shape, scheme), factors(shape, 2)
    ours, twin = (x.residual_sums(g, m, row, col, clip, part_of(g)) for x in (one_matrix, tiled))
    for a, b in zip(ours, twin, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_residual_sums_where_the_moment_has_settled() -> None:
    """u = m up to 1e-3, clipped: the expanded square loses digits, by no more than 1e-6 of u^2."""
    g, row, col = (torch.ones(shape, device=DEVICE) for shape in ((20, 150), 20, 150))
    k, rows, cols = one_matrix.residual_sums(g, Moment(0.8 * 1.001 * g), row, col, 0.8, part_of(g))
    assert k.item() == pytest.approx(0.8)
    torch.testing.assert_close(rows / 150, 6.4e-7 * row, rtol=0, atol=1e-6)
    torch.testing.assert_close(cols / 20, 6.4e-7 * col, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "scheme", "dtype", "seed"),
    [
        *((SHAPES[0], scheme, torch.float32, None) for scheme in (None, *SCHEMES)),
        *((SHAPES[0], scheme, torch.bfloat16, -7) for scheme in (None, "zero")),
        *((shape, "zero", torch.bfloat16, None) for shape in SHAPES[1:]),
        (SHAPES[0], "zero", torch.float16, None),
    ],
)
def test_apply(shape: tuple[int, int], scheme: Scheme | None, dtype: torch.dtype, seed: int | None) -> None:
    g, u, s = gradient(shape, dtype), factors(shape, 3), factors(shape, 4)
    results = []
    for passes in (one_matrix, tiled):
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
    shape = (9, 100)
    p, g = torch.zeros(2, *shape, device=DEVICE)
    m = moment(shape, scheme)
    before = dequantize(quantize(moment(shape, None).values, BLOCK, scheme), BLOCK, scheme)
    one_matrix.apply(p, g, m, factors(shape, 1), factors(shape, 2), 1.0, 1.0, None)
    again = quantize(before, BLOCK, scheme)
    assert (m.values.int() - again.codes.int()).abs().max() <= 1
    if scheme != "linear":
        assert torch.equal(m.values[before == 0], again.codes[before == 0])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_shard_whose_first_and_last_block_are_cut(scheme: Scheme) -> None:
    """19 rows of 70 values after 11 others: its blocks begin 770 values before, and others write into both ends."""
    shape, rows, cols = (19, 70), 19, 70
    g, u, s = gradient(shape), factors(shape, 3), factors(shape, 4)
    whole, edges = moment((11 + rows + 5, cols), scheme), torch.tensor([[-9.0, -8.0], [8.0, 9.0]]).to(DEVICE)
    first, last = 11 * cols // BLOCK, -(-30 * cols // BLOCK)
    assert whole.scale is not None
    results = []
    for passes in (one_matrix, tiled):
        offset = None if whole.offset is None else whole.offset[first:last].clone()
        scale = whole.scale[first:last].clone()
        m = Moment(whole.values[11:30].clone(), scale, offset, BLOCK, scheme, 11, edges)
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
    one_matrix.apply(p, 0 * ones, m, (row, row), (row, row), 1.0, 1.0, 99)
    assert torch.equal(p, stochastic_bf16(ones + 2**-9, 99))
    assert 0.2 < (p > 1).float().mean() < 0.3


OF_ALL_KINDS = [(6, 150), (4, 48, 1, 1), (3, 16), (3, 1, 3, 3), (40,), ()]
CASES: list[tuple[type[CAME], torch.dtype, dict[str, Any]]] = [
    (CAME, torch.float32, {}),
    (CAME8bit, torch.float32, {"scheme": "zero"}),
    (CAME8bit, torch.bfloat16, {"scheme": "linear", "maximize": True}),
    (CAME8bit, torch.bfloat16, {"scheme": "dynamic", "bf16_stochastic_round": True}),
]


def train(
    kernels: Any,
    kind: type[CAME],
    dtype: torch.dtype,
    options: dict[str, Any],
    bad: int | None = None,
    shapes: Sequence[tuple[int, ...]] = OF_ALL_KINDS,
) -> tuple[list[Tensor], list[Tensor], CAME]:
    """Two good steps of parameters of all kinds in two groups. The gradients of step `bad` are not finite."""
    more: dict[str, Any] = {} if kind is CAME else {"min_8bit_size": 100, "block_size": BLOCK}
    generator = torch.Generator().manual_seed(5)
    start = [torch.randn(shape, generator=generator).to(DEVICE, dtype) for shape in shapes]
    ps = [nn.Parameter(t.clone()) for t in start]
    groups = [{"params": ps[:2]}, {"params": ps[2:], "lr": 3e-3, "weight_decay": 0.1}]
    optimizer = kind(groups, lr=1e-2, capturable=True, **more, **options)
    with pytest.MonkeyPatch.context() as patch:
        for module in (came, masked):
            patch.setattr(module, "kernels_for", lambda device: kernels)
        for step in range(2 if bad is None else 3):
            for p in ps:
                g = torch.randn(p.shape, generator=generator) * 10 ** torch.randn((), generator=generator)
                if p.shape == OF_ALL_KINDS[0]:
                    g[4], g[:, 60:] = 0, 0
                p.grad = (g * torch.inf if step == bad else g).to(DEVICE, dtype)
            optimizer.step()
    return [p.detach() for p in ps], start, optimizer


def error(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30))


@pytest.mark.parametrize(("kind", "dtype", "options"), CASES)
def test_whole_steps(kind: type[CAME], dtype: torch.dtype, options: dict[str, Any]) -> None:
    """Steps by kernels and by their twin, with dead rows and columns."""
    ours, start, optimizer = train(triton_step, kind, dtype, options)
    twins, _, other = train(None, kind, dtype, options)
    for p, twin, before, a, b in zip(
        ours, twins, start, optimizer.state.values(), other.state.values(), strict=True
    ):
        assert error(p.float() - before.float(), twin.float() - before.float()) < (
            1e-3 if dtype == torch.float32 else 0.02
        )
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].shape == b[key].shape
            assert a[key].dtype == b[key].dtype
            assert error(a[key], b[key]) < (1e-3 if key == "exp_avg_codes" else 2e-5), key
        assert a["step"].item() == 2
    moved = (ours[0] - start[0]).float()
    if options.get("scheme") != "linear":  # where min-max has no zero, dead entries follow rounding noise
        assert not moved[4].any()
        assert not moved[:, 60:].any()
    assert moved[0, :60].all() or dtype == torch.bfloat16


def test_a_bad_gradient_changes_nothing_and_is_counted() -> None:
    shapes = [(2, 60), (3, 16), (40,)]  # in 8 bits, in fp32, unfactored
    ours, start, optimizer = train(triton_step, CAME8bit, torch.float32, {}, 1, shapes)
    twins, _, other = train(None, CAME8bit, torch.float32, {}, 1, shapes)
    for p, twin, before in zip(ours, twins, start, strict=True):
        assert p.isfinite().all()
        assert error(p - before, twin - before) < 1e-3
    for made in (optimizer, other):
        assert made.skipped_steps == 1
        assert all(state["step"].item() == 2 for state in made.state.values())
        assert all(t.float().isfinite().all() for state in made.state.values() for t in state.values())


def test_what_the_kernels_leave_to_torch() -> None:
    x = torch.zeros(8, 6)
    assert triton_step.can_step(x, x, None)
    assert not triton_step.can_step(x.t(), x.t(), None)
    assert not triton_step.can_step(x.double(), x, None)
    assert not triton_step.can_step(x, x, Moment(x, block=triton_step.LARGEST_BLOCK + 1))
