"""Reading the table of parameters inside a Triton kernel: the places of its fields, numbers, pointers and settings.

`row` is a pointer to a parameter's row, with the fields of `plan_fields.FIELDS`; `hyper` to the settings of all groups.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from sanactl.optim.plan_fields import FIELDS, HYPERS

__all__ = ["element", "number", "own_phase", "pointer", "setting"]

FP32, LINEAR, ZERO, DYNAMIC = 0, 1, 2, 3
WIDTH = tl.constexpr(len(FIELDS))
HYPER = tl.constexpr(len(HYPERS))
# Their places in a row, for the kernels.
P, G, M = (tl.constexpr(FIELDS.index(name)) for name in ("P", "G", "M"))
SCALE, OFFSET, STEP = (tl.constexpr(FIELDS.index(name)) for name in ("SCALE", "OFFSET", "STEP"))
ROWS, COLS, NUMEL = (tl.constexpr(FIELDS.index(name)) for name in ("R", "C", "NUMEL"))
LINE_R, LINE_C = (tl.constexpr(FIELDS.index(name)) for name in ("LINE_R", "LINE_C"))
PARTS_R, PARTS_C = (tl.constexpr(FIELDS.index(name)) for name in ("PARTS_R", "PARTS_C"))
TILE, ACROSS = (tl.constexpr(FIELDS.index(name)) for name in ("TILE", "ACROSS"))
BLOCK, PHASE = (tl.constexpr(FIELDS.index(name)) for name in ("BLOCK", "PHASE"))
GROUP, SEED = (tl.constexpr(FIELDS.index(name)) for name in ("GROUP", "SEED"))
BETA, RATE_M = (tl.constexpr(HYPERS.index(name)) for name in ("BETA", "RATE_M"))
LR, DECAY = (tl.constexpr(HYPERS.index(name)) for name in ("LR", "DECAY"))


def element(dtype: Any) -> Any:
    """Triton's name of a torch dtype."""
    return getattr(tl, {"float32": "float32", "bfloat16": "bfloat16", "float16": "float16"}[str(dtype)[6:]])


@triton.jit
def number(row, FIELD: tl.constexpr, EVEN: tl.constexpr = False):
    """A number of the row; EVEN promises that it is a multiple of 16."""
    # The promise belongs to the operation that makes the number: given to a function's result, Triton 3.6 forgets it.
    n = tl.load(row + FIELD).to(tl.int32)
    if EVEN:
        n = tl.multiple_of(n, 16)
    return n


@triton.jit
def pointer(row, FIELD: tl.constexpr, T: tl.constexpr, ALIGNED: tl.constexpr):
    p = tl.load(row + FIELD).to(tl.pointer_type(T))
    if ALIGNED:
        p = tl.multiple_of(p, 16)
    return p


@triton.jit
def own_phase(row, CUT: tl.constexpr, ALIGNED: tl.constexpr):
    """Values of the first 8-bit block that other processes have."""
    phase = 0
    if CUT:
        phase = number(row, PHASE, ALIGNED)
    return phase


@triton.jit
def setting(hyper, row, NAME: tl.constexpr):
    """A setting of the parameter's group."""
    return tl.load(hyper + tl.load(row + GROUP) * HYPER + NAME)
