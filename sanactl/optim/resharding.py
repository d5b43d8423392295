"""Optimizer state of sharded parameters in the form of one process's, and back.

So a state that several processes have saved fits any number of them. 8-bit state is copied as it is: its blocks are those
of the whole parameter (`sharded`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from sanactl.errors import InputError
from sanactl.optim.sharded import block_range, blocks_by_process, is_sharded, part_of
from sanactl.optim.state import block_size, layout

__all__ = ["Source", "Whole", "cut_rows", "cut_state", "whole", "whole_state"]


class Whole(NamedTuple):
    """A tensor that is divided among processes.

    Attributes:
        shape, dtype: of all of it.
        read: collects it on every process, all of which have to call it.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


class Source(Protocol):
    """A whole tensor of which parts can be read."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def rows(self, start: int, stop: int) -> Tensor: ...

    def read(self) -> Tensor: ...


def whole(t: Any) -> Tensor | Whole:
    """A tensor, or how to collect it if it is divided."""
    return Whole(tuple(t.shape), t.dtype, t.full_tensor) if is_sharded(t) else t


def whole_state(p: Tensor, group: dict[str, Any], key: str, value: Tensor) -> Tensor | Whole:
    """The tensor `key` of a parameter's state, as it would be if the parameter were not sharded."""
    if not is_sharded(value) or _division(p, group, key, tuple(value.shape)) != "blocks":
        return whole(value)
    block = block_size(p, group) or 1
    count = -(-p.numel() // block)
    placed: Any = value

    def read() -> Tensor:
        by_process = placed.full_tensor()
        found = by_process.new_zeros(count)
        for rank, mine in enumerate(by_process):
            blocks = block_range(p, block, rank)
            found[blocks.start : blocks.stop] = mine[: len(blocks)]
        return found

    return Whole((count,), value.dtype, read)


def cut_state(p: Tensor, group: dict[str, Any], key: str, source: Source) -> Tensor:
    """This process's part of the whole tensor `key` of a sharded parameter's state.

    Raises:
        InputError: its shape is not that of the parameter's state.
    """
    division = _division(p, group, key, source.shape)
    if division == "all":
        return source.read()
    if division == "rows":
        return cut_rows(p, source)
    block = block_size(p, group) or 1
    if source.shape != (-(-p.numel() // block),):
        raise InputError(f"{key} {list(source.shape)} of a saved state does not fit {list(p.shape)}")
    processes, most = blocks_by_process(p, block)
    blocks = block_range(p, block, part_of(p).rank)
    mine = source.rows(blocks.start, blocks.stop).to(p.device)
    return _placed(p, torch.cat([mine, mine.new_zeros(most - len(blocks))])[None], (processes, most))


def cut_rows(p: Tensor, source: Source) -> Tensor:
    """This process's rows of a whole tensor with as many rows as the sharded `p`, as a DTensor.

    Raises:
        InputError: it has another number of rows.
    """
    part = part_of(p)
    if source.shape[:1] != (part.rows,):
        raise InputError(f"{list(source.shape)} of a saved state does not fit {list(p.shape)}")
    mine = p.to_local().shape[0]
    return _placed(p, source.rows(part.first, part.first + mine).to(p.device), source.shape)


def _division(p: Tensor, group: dict[str, Any], key: str, shape: tuple[int, ...]) -> str:
    """`rows`, `blocks` or `all`. State of torch's own optimizers is divided if it has the parameter's shape."""
    kept = layout(p, group)
    if key in kept:
        return kept[key][2]
    return "rows" if shape == tuple(p.shape) else "all"


def _placed(p: Any, local: Tensor, shape: tuple[int, ...]) -> Tensor:
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        local, p.device_mesh, p.placements, run_check=False, shape=torch.Size(shape), stride=_stride(shape)
    )


def _stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    return torch.empty(shape, device="meta").stride()
