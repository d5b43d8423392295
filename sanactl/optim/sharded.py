"""Parameters sharded by FSDP2: DTensors of which each process has some rows.

CAME needs little from the other processes' rows: sums over columns [C], and one number for the clipping. A process
computes the means of its own rows, and the mean over all rows is the mean over all columns. So a matrix costs three small
all-reduces a step, and no process has more than its share of the first moment.

8-bit blocks are those of the whole parameter, wherever it is cut. A block that lies on a cut is in two shards (or in more,
of a small parameter): its smallest and largest value are agreed on in one more small all-reduce, and each of these processes
keeps its numbers. So neither the steps nor a whole state depend on the number of processes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sanactl.errors import UsageError

__all__ = [
    "Cuts",
    "Part",
    "block_range",
    "blocks_by_process",
    "check_sharding",
    "cuts_of",
    "is_sharded",
    "local",
    "part_of",
    "share_edges",
    "zeros_like_rows",
]


class Part(NamedTuple):
    """The part of a parameter that this process holds.

    Attributes:
        rows: of the whole parameter (its first dimension).
        numel: values of the whole parameter.
        group: the processes with the other parts; None if the parameter is whole.
        rank: this process's place among them.
        first: rows of the whole parameter before this part.
    """

    rows: int
    numel: int
    group: Any = None
    rank: int = 0
    first: int = 0

    def sum(self, t: Tensor) -> Tensor:
        """The sum of all processes' `t`, in place."""
        if self.group is not None:
            torch.distributed.all_reduce(t, group=self.group)
        return t


def is_sharded(t: Any) -> bool:
    """Whether this is a DTensor. It is checked by name, because importing the class is slow."""
    return type(t).__name__ == "DTensor"


def check_sharding(p: Tensor, name: str) -> None:
    """Raise UsageError for a DTensor that is not divided by rows over one dimension of processes."""
    if is_sharded(p):
        placements: Any = p.placements
        if len(placements) != 1 or type(placements[0]).__name__ != "Shard" or placements[0].dim != 0:
            raise UsageError(
                f"{name} is placed as {placements}, and CAME takes parameters that are whole or cut into rows",
                hint="use DDP, or FSDP2 (fully_shard) over a one-dimensional mesh, without tensor parallelism",
            )


def local(t: Tensor) -> Tensor:
    """This process's part of a tensor; it shares the tensor's memory."""
    return t.to_local() if is_sharded(t) else t


def part_of(p: Tensor) -> Part:
    """Describe this process's part of a parameter."""
    rows = p.shape[0] if p.ndim else 1
    if not is_sharded(p):
        return Part(rows, p.numel())
    mesh: Any = p.device_mesh
    rank: int = mesh.get_local_rank()
    return Part(rows, p.numel(), mesh.get_group(), rank, _first_row(rows, mesh.size(), rank))


def zeros_like_rows(p: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros of `shape`, whose first dimension is cut up as the rows of the sharded `p` are."""
    from torch.distributed import tensor

    placed: Any = p
    zeros: Tensor = tensor.zeros(
        *shape, dtype=dtype, device_mesh=placed.device_mesh, placements=placed.placements
    )
    return zeros


def _first_row(rows: int, processes: int, rank: int) -> int:
    """The first row of a process: torch cuts as `torch.chunk` does."""
    return min(rank * -(-rows // processes), rows)


def block_range(p: Tensor, block: int, rank: int) -> range:
    """The 8-bit blocks of the sharded `p` that process `rank` has values of."""
    rows, processes = p.shape[0], int(p.device_mesh.size())
    return _blocks_of(rows, p.numel() // max(rows, 1), block, processes, rank)


def _blocks_of(rows: int, width: int, block: int, processes: int, rank: int) -> range:
    start, stop = (_first_row(rows, processes, r) * width for r in (rank, rank + 1))
    return range(start // block, -(-stop // block) if stop > start else start // block)


def blocks_by_process(p: Tensor, block: int) -> tuple[int, int]:
    """The shape of the numbers for the 8-bit blocks of the sharded `p`: [processes, most blocks of a process].

    Each process has one row, with its blocks (`block_range`) in order; entries that it does not need are zero.
    """
    processes = int(p.device_mesh.size())
    return processes, max(len(block_range(p, block, rank)) for rank in range(processes))


class Cuts(NamedTuple):
    """Where a process's first and last 8-bit block lie on cuts between processes.

    Attributes:
        cuts: that lie within a block, of all processes.
        touched, edge: cuts within this process's first (0) or last (1) block, and which of these it is.
        place: for the first and the last block one such cut; `cuts` where there is none.
    """

    cuts: int
    touched: tuple[int, ...]
    edge: tuple[int, ...]
    place: tuple[int, int]


@lru_cache(maxsize=4096)
def _cuts(rows: int, width: int, block: int, processes: int, rank: int) -> Cuts:
    at = [_first_row(rows, processes, r) * width for r in range(1, processes)]
    on = [flat // block for flat in at if flat % block and flat < rows * width]
    mine = _blocks_of(rows, width, block, processes, rank)
    edges = (
        [(n, e) for e, b in enumerate((mine[0], mine[-1])) for n, c in enumerate(on) if c == b]
        if mine
        else []
    )
    place = tuple(next((n for n, e in edges if e == which), len(on)) for which in (0, 1))
    return Cuts(len(on), tuple(n for n, _ in edges), tuple(e for _, e in edges), (place[0], place[1]))


def cuts_of(part: Part, block: int) -> Cuts:
    """Where blocks of `block` flattened values of a parameter lie on cuts; nowhere if it is whole."""
    if part.group is None:
        return Cuts(0, (), (), (0, 0))
    processes = torch.distributed.get_world_size(part.group)
    return _cuts(part.rows, part.numel // max(part.rows, 1), block, processes, part.rank)


def share_edges(bounds: Tensor | None, part: Part, block: int, device: torch.device) -> Tensor | None:
    """The smallest and largest values of this process's first and last block over all processes that share these.

    Args:
        bounds: this process's own, [2, 2]: smallest and largest by first and last block; None if it has no values.
        block: flattened values in a block.

    Returns:
        The same over all processes; infinite (so that they change nothing) for a block that is not shared. None if no
        block of the parameter is shared.
    """
    cuts = cuts_of(part, block)
    if not cuts.cuts:
        return None
    # Negated smallest values: both are then found by a maximum. The last column is for blocks that are not shared.
    sent = torch.full((2, cuts.cuts + 1), -torch.inf, device=device)
    if bounds is not None and cuts.touched:
        sent[0, list(cuts.touched)] = -bounds[0, list(cuts.edge)]
        sent[1, list(cuts.touched)] = bounds[1, list(cuts.edge)]
    torch.distributed.all_reduce(sent, op=torch.distributed.ReduceOp.MAX, group=part.group)
    found = sent[:, list(cuts.place)]
    found[0].neg_()
    return found.contiguous()
