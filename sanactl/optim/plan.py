"""The tables that let one kernel work on many parameters: where their tensors are, and which program does what.

A kernel's program finds its parameter in a list (one number a program), and the parameter's pointers and sizes in a table
(one row a parameter). So the number of kernels of a step does not depend on the number of parameters. Tables stay on the
device between steps; they are sent again when a pointer has changed, as gradients' pointers do.

Matrices are worked on in chunks of about `CHUNK` values, which bounds the memory of the partial sums. A "line" is a row or
a column of a matrix; numbers a line (sums, factors) are in one flat buffer for all matrices: all rows, then all columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from sanactl.errors import UsageError
from sanactl.optim.moment import Moment
from sanactl.optim.sharded import Part, cuts_of
from sanactl.optim.state import Group

__all__ = ["CHUNK", "FIELDS", "HYPERS", "Chunk", "Item", "Kind", "Plan", "Vectors", "is_capturing"]

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


class Plan:
    """Tables and buffers for a list of parameters on one device, which all are whole or cut among the same processes.

    Attributes:
        order: the items' indices in the order of the table: matrices, chunk by chunk, then unfactored parameters.
        table: int64 [items, FIELDS].
        hyper: fp32 [groups, HYPERS].
        lines: fp32, for every line a number.
        totals: fp32, for every item the sum of its squared gradient.
        power: fp32, for every unfactored item the sum of its squared normalised gradient.
        ok: fp32 [1]: 1, or 0 where the step must change nothing.
    """

    def __init__(self, items: Sequence[Item], groups: int, device: torch.device) -> None:
        self.device, self.group = device, items[0].part.group
        kinds = [_kind(item) for item in items]
        self.order: list[int] = []
        rows: list[list[int]] = []
        self.chunks: list[Chunk] = []
        self.vectors: list[Vectors] = []
        self._lines_r = sum(_padded(item.g.shape[0]) for item in items if item.is_matrix)
        line_r, line_c = 0, self._lines_r
        for kind, members in _cut(items, kinds):
            chunk, found = self._chunk(kind, [items[i] for i in members], (line_r, line_c))
            rows += found
            self.chunks.append(chunk)
            self.order += members
            line_r, line_c = line_r + chunk.rows, line_c + chunk.cols
        self.matrices = len(self.order)
        for kind in dict.fromkeys(k for k, item in zip(kinds, items, strict=True) if not item.is_matrix):
            members = [i for i, item in enumerate(items) if not item.is_matrix and kinds[i] == kind]
            found = [_row(items[i]) for i in members]
            counts = [-(-items[i].g.numel() // VECTOR) for i in members]
            of = _there(_programs(found, "TILE", counts, len(rows)), device)
            self.vectors.append(Vectors(kind, of, len(rows), len(members)))
            rows += found
            self.order += members
        self._host = torch.tensor(rows, dtype=torch.int64).view(-1, len(FIELDS))
        self._spare: list[Tensor] = []
        self._sent: list[Tensor] = []
        self._settings: list[list[float]] = []
        self.table = torch.empty_like(self._host, device=device)
        self.hyper = torch.zeros(groups, len(HYPERS), device=device)
        self.lines = torch.empty(line_c, device=device)
        self.totals = torch.empty(len(items), device=device)
        self.power = torch.empty(len(items) - self.matrices, device=device)
        self.ok = torch.ones(1, device=device)
        self._send(self._host, self.table)

    @property
    def cols(self) -> Tensor:
        """The numbers of all columns: a view of `lines`."""
        return self.lines[self._lines_r :]

    def space(self) -> tuple[Tensor, Tensor]:
        """Memory for the chunks, one after the other: partial sums, and three numbers for each line of the chunk."""
        parts = 3 * max((c.parts for c in self.chunks), default=0)
        lines = 3 * max((c.rows + c.cols for c in self.chunks), default=0)
        programs = max((v.program_of.numel() for v in self.vectors), default=0)
        parts = -(-max(parts, programs) // 64) * 64
        space = torch.empty(parts + lines, device=self.device)
        return space[:parts], space[parts:]

    def point_at(self, gradients: Sequence[Tensor]) -> None:
        """Write the pointers of new gradients, in the order of the items, into the table."""
        new = torch.tensor([gradients[i].data_ptr() for i in self.order], dtype=torch.int64)
        column = FIELDS.index("G")
        if self._sends_always() or not torch.equal(new, self._host[:, column]):
            self._host[:, column] = new
            self._send(self._host, self.table)

    def set_hyper(self, groups: Sequence[Group]) -> None:
        """Write the groups' settings into `hyper`; a learning rate that is a tensor is copied on the device."""
        settings = [_settings(group) for group in groups]
        if self._sends_always() or settings != self._settings:
            self._settings = settings
            self._send(torch.tensor(settings, dtype=torch.float32), self.hyper)
        for i, group in enumerate(groups):
            if isinstance(group["lr"], Tensor):
                self.hyper[i, :1].copy_(group["lr"].detach().view(1), non_blocking=True)

    @property
    def captured(self) -> bool:
        """Whether a CUDA graph uses the tables, which must then stay where they are."""
        return bool(self._sent)

    def _sends_always(self) -> bool:
        """Whether another step may have written into the tables: a captured one writes its own before each replay."""
        return self.captured or is_capturing(self.device)

    def _send(self, values: Tensor, to: Tensor) -> None:
        """Copy to the device without waiting.

        A captured copy reads its source again in each replay, so the source must stay as it is. Memory cannot be pinned
        while a graph is captured; a spare buffer is kept for that.
        """
        if self.device.type != "cuda":
            to.copy_(values)
            return
        if is_capturing(self.device):
            same = next((t for t in self._spare if t.shape == values.shape and t.dtype == values.dtype), None)
            if same is None:
                raise UsageError("two CUDA graphs were captured in a row", hint="take a step between them")
            self._spare.remove(same)
            self._sent.append(same.copy_(values))
            to.copy_(same, non_blocking=True)
            return
        to.copy_(_there(values, self.device))
        if not any(t.shape == values.shape and t.dtype == values.dtype for t in self._spare):
            self._spare.append(torch.empty_like(values, pin_memory=True))

    def _chunk(self, kind: Kind, items: list[Item], lines: tuple[int, int]) -> tuple[Chunk, list[list[int]]]:
        first, rows = len(self.order), [_row(item) for item in items]
        shapes = [tuple(item.g.shape) for item in items]
        down = [-(-r // STRIP) for r, _ in shapes]
        across = [-(-c // TILE_COLS) for _, c in shapes]
        tiles = _programs(rows, "TILE", [d * a for d, a in zip(down, across, strict=True)], first)
        phases = [item.m.phase if kind.scheme else 0 for item in items]
        sizes = [p + r * c if r * c else 0 for p, (r, c) in zip(phases, shapes, strict=True)]
        blocks = _programs(rows, "BLOCK", [-(-size // kind.block) for size in sizes], first)
        parts = 0
        line_r, line_c = lines
        segments = []
        for k, (row, (r, c)) in enumerate(zip(rows, shapes, strict=True)):
            _set(row, LINE_R=line_r, LINE_C=line_c, ACROSS=across[k], DOWN=down[k], PHASE=phases[k])
            _set(row, PARTS_R=parts, PARTS_C=parts + across[k] * r)
            parts += across[k] * r + down[k] * c
            line_r, line_c = line_r + _padded(r), line_c + _padded(c)
            segments += [[first + k, 0, i] for i in range(0, r, SEGMENT)]
            segments += [[first + k, 1, i] for i in range(0, c, SEGMENT)]
        chunk = Chunk(
            kind=kind,
            tile_of=_there(tiles, self.device),
            block_of=_there(blocks, self.device),
            segments=_there(torch.tensor(segments, dtype=torch.int32), self.device),
            first=first,
            members=len(items),
            parts=parts,
            line_r=lines[0],
            line_c=lines[1],
            rows=line_r - lines[0],
            cols=line_c - lines[1],
            cuts=self._cuts(items) if kind.scheme else None,
            cut=any(phases),
            aligned=kind.even and all(t.data_ptr() % 16 == 0 for i in items for t in (i.p, i.g, i.m.values)),
        )
        return chunk, rows

    def _cuts(self, items: list[Item]) -> Cuts | None:
        count = 0
        touched: list[int] = []
        edge: list[int] = []
        place: list[int] = []
        for k, item in enumerate(items):
            found = cuts_of(item.part, item.m.block)
            touched += [count + n for n in found.touched]
            edge += [2 * k + e for e in found.edge]
            place += [count + n if n < found.cuts else -1 for n in found.place]
            count += found.cuts
        if not count:
            return None
        place = [count if n < 0 else n for n in place]
        return Cuts(
            count, *(_there(torch.tensor(x, dtype=torch.int64), self.device) for x in (touched, edge, place))
        )


def is_capturing(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _there(values: Tensor, device: torch.device) -> Tensor:
    """A copy of a CPU tensor on a device; nothing waits for it."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _kind(item: Item) -> Kind:
    p, g = item.p, item.g
    cols = g.shape[1] if item.is_matrix else 1
    block = item.m.block if item.m.scheme else FP32_BLOCK
    even = cols % 16 == 0 and block % 16 == 0
    return Kind(p.dtype, g.dtype, item.m.scheme, block, item.seed is not None, cols >= block, even)


def _cut(items: Sequence[Item], kinds: list[Kind]) -> Iterator[tuple[Kind, list[int]]]:
    """The indices of matrices of each kind, cut where a chunk would have more than `CHUNK` values.

    Processes that share the parameters make the same cuts: their all-reduces must match.
    """
    group = items[0].part.group
    processes = 1 if group is None else torch.distributed.get_world_size(group)
    matrices = [i for i, item in enumerate(items) if item.is_matrix]
    for kind in dict.fromkeys(kinds[i] for i in matrices):
        members: list[int] = []
        size = 0
        for i in (i for i in matrices if kinds[i] == kind):
            share = items[i].part.numel // processes
            if members and size + share > CHUNK:
                yield kind, members
                members, size = [], 0
            members.append(i)
            size += share
        yield kind, members


def _row(item: Item) -> list[int]:
    row = [0] * len(FIELDS)
    m = item.m
    scale = m.values if m.scale is None else m.scale
    _set(row, P=item.p.data_ptr(), G=item.g.data_ptr(), M=m.values.data_ptr(), STEP=item.step.data_ptr())
    _set(row, SCALE=scale.data_ptr(), OFFSET=(scale if m.offset is None else m.offset).data_ptr())
    names = ("ROW", "COL", "RES_ROW", "RES_COL")
    _set(row, **{name: t.data_ptr() for name, t in zip(names, item.second, strict=False)})
    if item.is_matrix:
        _set(row, R=item.g.shape[0], C=item.g.shape[1])
    _set(row, NUMEL=item.g.numel(), WHOLE_ROWS=item.part.rows, WHOLE_NUMEL=item.part.numel)
    _set(row, GROUP=item.group, SEED=item.seed or 0)
    return row


def _padded(lines: int) -> int:
    """The room for the numbers of some lines, so that the next ones begin at a multiple of 64 bytes."""
    return -(-lines // 16) * 16


def _set(row: list[int], **values: int) -> None:
    for name, value in values.items():
        row[FIELDS.index(name)] = value


def _programs(rows: list[list[int]], field: str, counts: list[int], first: int) -> Tensor:
    """For each program, its row of the table; `rows` begin at `first` and need `counts` programs each.

    A row's first program goes into its `field`.
    """
    for row, begin in zip(rows, accumulate([0, *counts[:-1]]), strict=True):
        _set(row, **{field: begin})
    numbers = torch.arange(first, first + len(rows), dtype=torch.int32)
    return torch.repeat_interleave(numbers, torch.tensor(counts))


def _settings(group: Group) -> list[float]:
    """The row of `HYPERS`."""
    b1, b2, b3 = group["betas"]
    lr = 0.0 if isinstance(group["lr"], Tensor) else float(group["lr"])
    sign = -1.0 if group["maximize"] else 1.0
    clip, decay = group["clip_threshold"], group["weight_decay"]
    return [lr, b1, 1 - b1, 1 - b2, 1 - b3, *group["eps"], clip, decay, sign]
