"""Parameters sharded by FSDP2: DTensors of which each process has some rows.

CAME needs little from the other processes' rows: sums over columns [C], and one number for the clipping. A process
computes the means of its own rows, and the mean over all rows is the mean over all columns. So a matrix costs three small
all-reduces a step, and no process has more than its share of the first moment.

8-bit blocks begin anew in each shard, so a saved state fits only the same number of processes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sanactl.errors import UsageError

__all__ = ["Part", "blocks_by_process", "check_sharding", "is_sharded", "local", "part_of", "zeros_like_rows"]


class Part(NamedTuple):
    """The part of a parameter that this process holds.

    Attributes:
        rows: of the whole parameter (its first dimension).
        numel: values of the whole parameter.
        group: the processes with the other parts; None if the parameter is whole.
        rank: this process's place among them.
    """

    rows: int
    numel: int
    group: Any = None
    rank: int = 0

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
    return Part(rows, p.numel(), mesh.get_group(), mesh.get_local_rank())


def zeros_like_rows(p: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros of `shape`, whose first dimension is cut up as the rows of the sharded `p` are."""
    from torch.distributed import tensor

    placed: Any = p
    zeros: Tensor = tensor.zeros(
        *shape, dtype=dtype, device_mesh=placed.device_mesh, placements=placed.placements
    )
    return zeros


def blocks_by_process(p: Tensor, block: int) -> tuple[int, int]:
    """The shape of the numbers for the 8-bit blocks of the sharded `p`: [processes, most blocks of a process].

    Each process has one row, even if the parts are uneven; entries that it does not need are zero.
    """
    processes: int = p.device_mesh.size()
    largest = -(-p.shape[0] // processes)  # torch cuts as `torch.chunk` does
    return processes, -(-largest * (p.numel() // max(p.shape[0], 1)) // block)
