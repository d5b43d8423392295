"""A step of CAME for all parameters of a plan, as a fixed sequence of Triton kernels; see `plan` and `triton_kernels`.

The host reads nothing from the device. Whether all gradients are finite is a number on the device; where they are not, the
kernels store nothing.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any

import torch
import triton
from torch import Tensor

from sanactl.errors import UsageError
from sanactl.optim.blockwise import TINY_RANGE, dynamic_map, dynamic_midpoints
from sanactl.optim.moment import Moment
from sanactl.optim.plan import Plan
from sanactl.optim.plan_fields import SEGMENT, STRIP, TILE_COLS, TILE_ROWS, VECTOR, Chunk, Kind, partial_sums
from sanactl.optim.triton_kernels import apply_kernel, edges_kernel, residual_kernel, square_kernel
from sanactl.optim.triton_lines import (
    combine_kernel,
    factors_kernel,
    segment_kernel,
    total_kernel,
    verdict_kernel,
)
from sanactl.optim.triton_table import DYNAMIC, FP32, LINEAR, ZERO, element
from sanactl.optim.triton_vectors import (
    part_kernel,
    vector_apply_kernel,
    vector_moment_kernel,
    vector_square_kernel,
)

__all__ = [
    "apply",
    "can_step",
    "change_parameters",
    "check_driver",
    "residual_sums",
    "sum_squares",
    "verdict",
]

LARGEST_BLOCK = 16384  # values that one program keeps in registers
LARGEST_INDEX = 1 << 31  # places are signed 32-bit numbers
KINDS = {None: FP32, "linear": LINEAR, "zero": ZERO, "dynamic": DYNAMIC}
# Fused multiply-adds would round differently from torch; they would gain nothing, since memory limits the speed.
LAUNCH: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": False}
WIDE_LAUNCH: dict[str, Any] = {"num_warps": 8, "enable_fp_fusion": False}
TILE = {"TR": TILE_ROWS, "TC": TILE_COLS, "STRIP": STRIP}
DEPTH = 16  # partial sums of a line that a program loads at once
LINES = 1024  # lines of a matrix that a program has in registers


def can_step(p: Tensor, g: Tensor, m: Moment | None) -> bool:
    """Whether the kernels take this parameter: row-major, with blocks that fit a program, and places that fit 32 bits.

    A place can be up to two blocks after the last value, and the partial sums of a matrix are in three times its tiles'
    lines, of which a matrix with hundreds of millions of very short rows has too many.
    """
    dense = p.is_contiguous() and g.is_contiguous() and g.numel() < LARGEST_INDEX - 2 * LARGEST_BLOCK
    if g.ndim == 2:
        dense = dense and 3 * partial_sums(*g.shape) < LARGEST_INDEX
    narrow = p.dtype != torch.float64 and g.dtype != torch.float64
    return dense and narrow and (m is None or (m.block <= LARGEST_BLOCK and m.values.is_contiguous()))


def check_driver() -> None:
    """Let Triton load its driver, which it builds with a C compiler when it is first used.

    Raises:
        UsageError: that fails.
    """
    try:
        triton.runtime.driver.active.get_current_device()
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        raise UsageError(
            f"Triton cannot start kernels on this machine: {str(error).partition(chr(10))[0]}",
            hint="install a C compiler and Python's headers (gcc, python3-dev); or set SANACTL_NO_TRITON=1, with which "
            "torch takes the steps, more slowly",
        ) from error


def sum_squares(plan: Plan, space: tuple[Tensor, Tensor]) -> None:
    """The sums of squares of every line into `plan.lines`, and of every parameter into `plan.totals`."""
    with _on(plan):
        for chunk in plan.chunks:
            square_sums(plan, chunk, space)
        _all_reduce(plan, plan.cols)
        if plan.matrices:
            total_kernel[(plan.matrices,)](
                plan.table, plan.lines, plan.totals, plan.group is not None, LINES, **WIDE_LAUNCH
            )
        for vectors in plan.vectors:
            if vectors.program_of.numel():
                vector_square_kernel[(vectors.program_of.numel(),)](
                    plan.table, vectors.program_of, space[0], element(vectors.kind.g), VECTOR, **LAUNCH
                )
            part_kernel[(vectors.members,)](
                plan.table,
                vectors.first,
                space[0],
                plan.totals[vectors.first :],
                plan.ok,
                False,
                VECTOR,
                256,
                **LAUNCH,
            )
        _all_reduce(plan, plan.totals[plan.matrices :])


def verdict(plan: Plan, totals: Tensor, most: float) -> None:
    """Whether every one of `totals` is at most `most`, into `plan.ok`."""
    with _on(plan):
        verdict_kernel[(1,)](totals, totals.numel(), most, plan.ok, LINES, **LAUNCH)


def change_parameters(plan: Plan, space: tuple[Tensor, Tensor]) -> None:
    """The rest of the step, after `sum_squares` and `verdict`."""
    sharded = plan.group is not None
    with _on(plan):
        if plan.matrices:
            factors_kernel[(plan.matrices,)](
                plan.table, plan.hyper, plan.lines, plan.ok, sharded, LINES, **WIDE_LAUNCH
            )
        for chunk in plan.chunks:
            residual_sums(plan, chunk, space)
            sums = space[1][: 3 * (chunk.rows + chunk.cols)]
            if sharded:
                cols = sums.view(3, -1)[:, chunk.rows :]
                cols.copy_(_all_reduce(plan, cols.contiguous()))
            combine_kernel[(chunk.members,)](
                plan.table, chunk.first, plan.hyper, plan.lines, sums,
                chunk.line_r, chunk.line_c - chunk.rows, chunk.rows + chunk.cols, plan.ok, sharded, LINES, **WIDE_LAUNCH,
            )  # fmt: skip
            apply(plan, chunk, sums, _edges(plan, chunk))
        _change_vectors(plan, space[0])


def square_sums(plan: Plan, chunk: Chunk, space: tuple[Tensor, Tensor]) -> None:
    """The sums of squares of a chunk's lines into `plan.lines`: this process's part of them."""
    kind, parts = chunk.kind, space[0]
    if chunk.tile_of.numel():
        square_kernel[(chunk.tile_of.numel(),)](
            plan.table, chunk.tile_of, parts, element(kind.g), chunk.aligned, **TILE, **LAUNCH
        )
    segment_kernel[(chunk.segments.shape[0],)](
        plan.table, chunk.segments, parts, plan.lines, 0, 0, 0, 0, 1, SEGMENT, DEPTH, **LAUNCH
    )


def residual_sums(plan: Plan, chunk: Chunk, space: tuple[Tensor, Tensor]) -> None:
    """The sums of d^2, d m and m^2 of a chunk's lines (see `residual_kernel`) into `space[1]`: three times all lines."""
    kind, (parts, sums) = chunk.kind, space
    if chunk.tile_of.numel():
        residual_kernel[(chunk.tile_of.numel(),)](
            plan.table, chunk.tile_of, plan.lines, parts, chunk.parts, dynamic_map(plan.device), plan.ok,
            element(kind.g), _offset(kind), KINDS[kind.scheme], kind.block, chunk.cut, chunk.aligned, **TILE, **LAUNCH,
        )  # fmt: skip
    segment_kernel[(chunk.segments.shape[0],)](
        plan.table, chunk.segments, parts, sums, chunk.line_r, chunk.line_c - chunk.rows, chunk.parts,
        chunk.rows + chunk.cols, 3, SEGMENT, DEPTH, **LAUNCH,
    )  # fmt: skip


def apply(plan: Plan, chunk: Chunk, steps: Tensor, edges: Tensor | None = None) -> None:
    """The new moments and parameters of a chunk.

    Args:
        steps: the step's factors for its rows, then its columns.
        edges: [matrices, 2, 2], `moment.Moment.edges` of each matrix.
    """
    kind = chunk.kind
    if chunk.block_of.numel():
        apply_kernel[(chunk.block_of.numel(),)](
            plan.table, chunk.first, chunk.block_of, plan.hyper, plan.lines, steps, chunk.line_r, chunk.line_c - chunk.rows,
            steps if edges is None else edges, dynamic_map(plan.device), dynamic_midpoints(plan.device), plan.ok,
            element(kind.p), element(kind.g), _offset(kind), KINDS[kind.scheme], kind.block,
            kind.wide, chunk.cut, edges is not None, kind.stochastic, chunk.aligned, TINY_RANGE, triton.next_power_of_2(kind.block),
            **WIDE_LAUNCH,
        )  # fmt: skip


def _edges(plan: Plan, chunk: Chunk) -> Tensor | None:
    """As `sharded.share_edges`, for all matrices of a chunk at once: [matrices, 2, 2]."""
    kind, cuts = chunk.kind, chunk.cuts
    if cuts is None:
        return None
    bounds = torch.empty(chunk.members, 2, 2, device=plan.device)
    edges_kernel[(2 * chunk.members,)](
        plan.table, chunk.first, plan.hyper, plan.lines, bounds, dynamic_map(plan.device),
        element(kind.g), _offset(kind), KINDS[kind.scheme], kind.block, triton.next_power_of_2(kind.block), **WIDE_LAUNCH,
    )  # fmt: skip
    # Negated smallest values: both are then found by a maximum. The last column is for blocks that are not shared.
    sent = torch.full((2, cuts.cuts + 1), -torch.inf, device=plan.device)
    low, high = bounds.unbind(1)
    sent[0].index_copy_(0, cuts.touched, -low.flatten()[cuts.edge])
    sent[1].index_copy_(0, cuts.touched, high.flatten()[cuts.edge])
    torch.distributed.all_reduce(sent, op=torch.distributed.ReduceOp.MAX, group=plan.group)
    found = sent[:, cuts.place].view(2, chunk.members, 2)
    found[0].neg_()
    return found.transpose(0, 1).contiguous()


def _change_vectors(plan: Plan, parts: Tensor) -> None:
    for vectors in plan.vectors:
        if vectors.program_of.numel():
            vector_moment_kernel[(vectors.program_of.numel(),)](
                plan.table,
                vectors.program_of,
                plan.hyper,
                parts,
                plan.ok,
                element(vectors.kind.g),
                VECTOR,
                **LAUNCH,
            )
        part_kernel[(vectors.members,)](
            plan.table, vectors.first, parts, plan.power[vectors.first - plan.matrices :], plan.ok, True, VECTOR, 256,
            **LAUNCH,
        )  # fmt: skip
    _all_reduce(plan, plan.power)
    for vectors in plan.vectors:
        if vectors.program_of.numel():
            vector_apply_kernel[(vectors.program_of.numel(),)](
                plan.table, plan.matrices, vectors.program_of, plan.hyper, plan.power, plan.ok,
                element(vectors.kind.p), element(vectors.kind.g), vectors.kind.stochastic, VECTOR, **LAUNCH,
            )  # fmt: skip


def _offset(kind: Kind) -> Any:
    return element(torch.float32) if kind.scheme != "zero" else triton.language.uint8


def _all_reduce(plan: Plan, t: Tensor) -> Tensor:
    if plan.group is not None and t.numel():
        torch.distributed.all_reduce(t, group=plan.group)
    return t


def _on(plan: Plan) -> Any:
    """Make the plan's device the current one, which Triton launches on."""
    return torch.cuda.device_of(plan.lines)


def _mend_interpreter() -> None:
    """Let the interpreter of Triton 3.6 and 3.7 use a number of the kernel as the bound of a loop.

    It keeps such a number as an array of one value, and NumPy 2.5 no longer converts that by `int`. It concerns no kernel on
    a GPU.
    """
    from triton.runtime import interpreter

    usual = interpreter._patch_lang_tensor

    def patch(tensor: Any, scope: Any) -> None:
        usual(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch


if os.environ.get("TRITON_INTERPRET") == "1" and triton.__version__.startswith(("3.6.", "3.7.")):
    _mend_interpreter()
