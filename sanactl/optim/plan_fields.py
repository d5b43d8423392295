"""What a plan consists of: a parameter for the kernels, its row of numbers, and the groups of parameters of one kernel.

A kernel's program finds its parameter in a list (one number a program), and the parameter's pointers and sizes in a table
(one row a parameter, `FIELDS`). Matrices are worked on in chunks of about `CHUNK` values, which bounds the memory of the
partial sums.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sanactl.optim.moment import Moment
from sanactl.optim.sharded import Part
from sanactl.optim.state import Group

__all__ = [
    "CHUNK",
    "FIELDS",
    "HYPERS",
    "Chunk",
    "Cuts",
    "Item",
    "Kind",
    "Vectors",
    "kind_of",
    "partial_sums",
    "row_of",
    "set_fields",
    "settings_of",
]

CHUNK = 1 << 28
# A tile is STRIP x TILE_COLS values, of which a program has TILE_ROWS x TILE_COLS in registers at a time.
TILE_ROWS, TILE_COLS, STRIP = 8, 128, 256
SEGMENT = 128  # lines that one program sums
VECTOR = 1024  # values of an unfactored parameter for one program
FP32_BLOCK = 2048  # values for one program where the moment is fp32

# The columns of the table. Up to STEP they are pointers. For an unfactored parameter, ROW is its second moment.
FIELDS = (
    "P", "G", "M", "SCALE", "OFFSET", "ROW", "COL", "RES_ROW", "RES_COL", "STEP",
    "R", "C", "NUMEL", "WHOLE_ROWS", "WHOLE_NUMEL",  # local rows, columns, local values; of the whole parameter
    "LINE_R", "LINE_C",  # the first row and column in the flat buffer
    "PARTS_R", "PARTS_C",  # the first partial sum of rows and columns in the chunk's buffer
    "TILE", "ACROSS", "DOWN", "BLOCK",  # first tile of the chunk, tiles in a row, in a column; first 8-bit block
    "PHASE",  # values of the first 8-bit block that other processes have
    "GROUP", "SEED",
)  # fmt: skip
HYPERS = ("LR", "BETA", "RATE_M", "RATE_SQ", "RATE_RES", "EPS", "EPS_RES", "CLIP", "DECAY", "SIGN")


class Item(NamedTuple):
    """A parameter for the kernels: this process's part of its tensors.

    Attributes:
        p, g: the parameter and its gradient; [R, C] for a matrix.
        m: the first moment; of an unfactored parameter, fp32 of any shape.
        second: fp32: `exp_avg_sq_row`, `_col`, `exp_avg_res_row`, `_col` of a matrix; else `exp_avg_sq`.
        step: the step count, an fp32 scalar on the device.
        part: which part of the whole parameter this is.
        group: index of the parameter's group.
        seed: the part of the seed for stochastic rounding that does not change; None without it.
    """

    p: Tensor
    g: Tensor
    m: Moment
    second: tuple[Tensor, ...]
    step: Tensor
    part: Part
    group: int
    seed: int | None

    @property
    def is_matrix(self) -> bool:
        return len(self.second) == 4


class Kind(NamedTuple):
    """What a kernel is compiled for; the same on all processes that share the parameters."""

    p: torch.dtype
    g: torch.dtype
    scheme: str | None
    block: int
    stochastic: bool
    wide: bool  # a block has values of two rows at most
    even: bool  # rows and blocks are multiples of 16 values


class Cuts(NamedTuple):
    """Where 8-bit blocks of a chunk's matrices lie on cuts between processes; see `sharded.share_edges`.

    Attributes:
        cuts: cuts that lie within a block.
        touched, edge: such cuts in this process's blocks, and which block's edges these are: matrix * 2, + 1 for the last.
        place: for each matrix's first and last block one such cut; `cuts` where there is none.
    """

    cuts: int
    touched: Tensor
    edge: Tensor
    place: Tensor


class Chunk(NamedTuple):
    """Matrices of one kind.

    Attributes:
        tile_of, block_of: int32, for each program: the matrix (row of the table).
        segments: int32 [segments, 3]: matrix, 0 for rows or 1 for columns, first line.
        first, members: its matrices' rows in the table.
        parts: partial sums (one of three numbers each).
        line_r, line_c: rows and columns before the chunk.
        rows, cols: rows and columns of the chunk, with the gaps between matrices.
        cuts: None where no 8-bit block lies on a cut.
        cut: whether a matrix's first block here begins in another process.
        aligned: whether loads of 16 bytes are possible.
    """

    kind: Kind
    tile_of: Tensor
    block_of: Tensor
    segments: Tensor
    first: int
    members: int
    parts: int
    line_r: int
    line_c: int
    rows: int
    cols: int
    cuts: Cuts | None
    cut: bool
    aligned: bool


class Vectors(NamedTuple):
    """Unfactored parameters of one kind: `program_of` as `Chunk.tile_of`, and their rows in the table."""

    kind: Kind
    program_of: Tensor
    first: int
    members: int


def kind_of(item: Item) -> Kind:
    """What a kernel for this parameter is compiled for."""
    p, g = item.p, item.g
    cols = g.shape[1] if item.is_matrix else 1
    block = item.m.block if item.m.scheme else FP32_BLOCK
    even = cols % 16 == 0 and block % 16 == 0
    return Kind(p.dtype, g.dtype, item.m.scheme, block, item.seed is not None, cols >= block, even)


def partial_sums(rows: int, cols: int) -> int:
    """How many partial sums the tiles of a matrix have: of the rows of each column of tiles, and the reverse."""
    return -(-cols // TILE_COLS) * rows + -(-rows // STRIP) * cols


def row_of(item: Item) -> list[int]:
    """A parameter's row of the table; fields that depend on the other parameters are 0."""
    row = [0] * len(FIELDS)
    m = item.m
    scale = m.values if m.scale is None else m.scale
    set_fields(
        row, P=item.p.data_ptr(), G=item.g.data_ptr(), M=m.values.data_ptr(), STEP=item.step.data_ptr()
    )
    set_fields(row, SCALE=scale.data_ptr(), OFFSET=(scale if m.offset is None else m.offset).data_ptr())
    names = ("ROW", "COL", "RES_ROW", "RES_COL")
    set_fields(row, **{name: t.data_ptr() for name, t in zip(names, item.second, strict=False)})
    if item.is_matrix:
        set_fields(row, R=item.g.shape[0], C=item.g.shape[1])
    set_fields(row, NUMEL=item.g.numel(), WHOLE_ROWS=item.part.rows, WHOLE_NUMEL=item.part.numel)
    set_fields(row, GROUP=item.group, SEED=item.seed or 0)
    return row


def set_fields(row: list[int], **values: int) -> None:
    """Write fields of a row by their names."""
    for name, value in values.items():
        row[FIELDS.index(name)] = value


def settings_of(group: Group) -> list[float]:
    """The row of `HYPERS`."""
    b1, b2, b3 = group["betas"]
    lr = 0.0 if isinstance(group["lr"], Tensor) else float(group["lr"])
    sign = -1.0 if group["maximize"] else 1.0
    clip, decay = group["clip_threshold"], group["weight_decay"]
    return [lr, b1, 1 - b1, 1 - b2, 1 - b3, *group["eps"], clip, decay, sign]
