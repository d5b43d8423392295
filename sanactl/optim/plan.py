"""The tables that let one kernel work on many parameters: where their tensors are, and which program does what.

So the number of kernels of a step does not depend on the number of parameters. Tables stay on the device between steps;
they are sent again when a pointer has changed, as gradients' pointers do. A "line" is a row or a column of a matrix;
numbers a line (sums, factors) are in one flat buffer for all matrices: all rows, then all columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from sanactl.errors import UsageError
from sanactl.optim.plan_fields import (
    CHUNK,
    FIELDS,
    HYPERS,
    SEGMENT,
    STRIP,
    TILE_COLS,
    VECTOR,
    Chunk,
    Cuts,
    Item,
    Kind,
    Vectors,
    kind_of,
    partial_sums,
    row_of,
    set_fields,
    settings_of,
)
from sanactl.optim.sharded import cuts_of
from sanactl.optim.state import Group

__all__ = ["Plan", "is_capturing"]


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
        kinds = [kind_of(item) for item in items]
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
            found = [row_of(items[i]) for i in members]
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
        settings = [settings_of(group) for group in groups]
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
        first, rows = len(self.order), [row_of(item) for item in items]
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
            set_fields(row, LINE_R=line_r, LINE_C=line_c, ACROSS=across[k], DOWN=down[k], PHASE=phases[k])
            set_fields(row, PARTS_R=parts, PARTS_C=parts + across[k] * r)
            parts += partial_sums(r, c)
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
    """Whether a CUDA graph is being captured in the device's current stream."""
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return bool(torch.cuda.is_current_stream_capturing())


def _there(values: Tensor, device: torch.device) -> Tensor:
    """A copy of a CPU tensor on a device; nothing waits for it."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


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


def _padded(lines: int) -> int:
    """The room for the numbers of some lines, so that the next ones begin at a multiple of 64 bytes."""
    return -(-lines // 16) * 16


def _programs(rows: list[list[int]], field: str, counts: list[int], first: int) -> Tensor:
    """For each program, its row of the table; `rows` begin at `first` and need `counts` programs each.

    A row's first program goes into its `field`.
    """
    for row, begin in zip(rows, accumulate([0, *counts[:-1]]), strict=True):
        set_fields(row, **{field: begin})
    numbers = torch.arange(first, first + len(rows), dtype=torch.int32)
    return torch.repeat_interleave(numbers, torch.tensor(counts))
