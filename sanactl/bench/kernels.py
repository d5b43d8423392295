"""Comparing the Triton kernels of CAME with torch: difference, time, and share of the copy bandwidth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from sanactl.bench import one_matrix as triton_kernels
from sanactl.bench.machine import time_calls
from sanactl.bench.optim_cost import copy_bandwidth
from sanactl.bench.rows import Rows
from sanactl.optim import tiled
from sanactl.optim.blockwise import SCHEMES, Scheme, quantize
from sanactl.optim.moment import Moment
from sanactl.optim.sharded import part_of

__all__ = ["SMALL_SHAPES", "kernel_differences", "measure_kernels"]

# Matrices of a block of SANA 1.6B: attention, and the two 1x1 convolutions of the feed-forward.
SHAPES = ((2240, 2240), (11200, 2240), (2240, 5600))
SMALL_SHAPES = ((70, 150), (1, 300))
_BLOCK = 2048
# Values of the matrices that a kernel is timed on, all of one shape. They are far more than a cache holds, and their kernel
# takes far longer than its launch.
_VALUES = 1 << 27


class _Inputs(NamedTuple):
    """The inputs for one matrix: parameter, gradient, moment, and the factors of rows and columns."""

    p: Tensor
    g: Tensor
    m: Moment
    row: Tensor
    col: Tensor


class _Case(NamedTuple):
    """One kernel: its name, its call on some inputs, and the least number of bytes that it must move."""

    name: str
    run: Callable[[ModuleType, _Inputs], tuple[Tensor, ...]]
    moved: int


def measure_kernels(rows: Rows, device: torch.device, *, small: bool = False) -> None:
    """Adds a row for each kernel, matrix and quantization scheme to the table "kernels beside their torch twin".

    `difference` is the root mean square of the difference, divided by that of torch's result; the largest of all results
    counts. Times are those of one launch over as many equal matrices as have `_VALUES` values together, as in a step, and of
    torch's operations on the same matrices. Codes of 8-bit moments count as numbers: one code of a hundred that is off by one level gives about 1e-4. On a
    CPU the kernels run in Triton's interpreter, and their times have no meaning.
    """
    bandwidth = copy_bandwidth(device, 1 << 24 if small else 1 << 30)
    for shape in SMALL_SHAPES if small else SHAPES:
        count = 1 if small else _VALUES // (shape[0] * shape[1])
        for scheme in (None, *SCHEMES):
            one = _inputs(shape, scheme, device)
            many = [one, *(_copy(one) for _ in range(count - 1))]
            ready = triton_kernels.Ready([(i.p, i.g, i.m) for i in many])
            for case in _cases(shape, scheme):
                difference = _case_difference(case, shape, scheme, device)
                ours, twin = (
                    time_calls(call, device, count=1 if small else 10, warm=1)
                    for call in (getattr(ready, case.name), partial(_run_all, case, many))
                )
                rows.add(
                    "kernels beside their torch twin",
                    kernel=case.name,
                    matrix=f"{shape[0]} x {shape[1]}",
                    matrices=count,
                    moment=scheme or "fp32",
                    difference=difference,
                    ms=ours,
                    twin_ms=twin,
                    copy_share=count * case.moved / (ours / 1000) / bandwidth,
                )


def kernel_differences(
    device: torch.device, shapes: Sequence[tuple[int, int]]
) -> Iterator[tuple[str, float]]:
    """The name and the difference (see `measure_kernels`) of each kernel, matrix and quantization scheme."""
    for shape in shapes:
        for scheme in (None, *SCHEMES):
            for case in _cases(shape, scheme):
                yield case.name, _case_difference(case, shape, scheme, device)


def _case_difference(
    case: _Case, shape: tuple[int, int], scheme: Scheme | None, device: torch.device
) -> float:
    found = [case.run(passes, _inputs(shape, scheme, device)) for passes in (triton_kernels, tiled)]
    # max() would lose a NaN that is not the first
    return max(d if d == d else math.inf for d in (_difference(a, b) for a, b in zip(*found, strict=True)))


def _run_all(case: _Case, inputs: Sequence[_Inputs]) -> None:
    for i in inputs:
        case.run(tiled, i)


def _copy(i: _Inputs) -> _Inputs:
    scale, offset = (None if t is None else t.clone() for t in (i.m.scale, i.m.offset))
    m = i.m._replace(values=i.m.values.clone(), scale=scale, offset=offset)
    return i._replace(p=i.p.clone(), g=i.g.clone(), m=m)


def _cases(shape: tuple[int, int], scheme: Scheme | None) -> Iterator[_Case]:
    size, moment = shape[0] * shape[1], 4 if scheme is None else 1
    yield _Case(
        "residual_sums",
        lambda passes, i: passes.residual_sums(i.g, i.m, i.row, i.col, 1.0, part_of(i.g)),
        size * (2 + moment),
    )
    yield _Case("apply", _apply, size * (2 + 2 * 2 + 2 * moment))
    if scheme is None:
        yield _Case("square_sums", lambda passes, i: passes.square_sums(i.g), 2 * size)


def _apply(passes: ModuleType, i: _Inputs) -> tuple[Tensor, ...]:
    passes.apply(i.p, i.g, i.m, (i.row, i.col), (i.row * 1e-3, i.col), 0.9, 1.0, 7)
    return (i.p, i.m.values, *(t for t in (i.m.scale, i.m.offset) if t is not None))


def _inputs(shape: tuple[int, int], scheme: Scheme | None, device: torch.device) -> _Inputs:
    """The same for every call: bf16 parameter and gradient, as of a bf16 model, a moment of the gradient's size."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=device)

    p, g = normal(*shape).bfloat16(), (normal(*shape) * 1e-3).bfloat16()
    values = normal(*shape) * 0.3
    m = Moment(values)
    if scheme is not None:
        q = quantize(values, _BLOCK, scheme)
        m = Moment(q.codes, q.scale, q.offset, _BLOCK, scheme)
    row, col = normal(shape[0]).abs() * 30 + 10, normal(shape[1]).abs() * 30 + 10
    return _Inputs(p, g, m, row, col)


def _difference(ours: Tensor, twin: Tensor) -> float:
    a, b = ours.double(), twin.double()
    return ((a - b).norm() / b.norm().clamp_min(1e-300)).item()
